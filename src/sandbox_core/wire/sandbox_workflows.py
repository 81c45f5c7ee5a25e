"""Tracks which workflows use sandboxes; only these get special treatment."""

from __future__ import annotations

import asyncio
import weakref

# Temporal runs each workflow in an event loop of its own.
_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def note_use_of_sandbox() -> None:
    """Record that the calling workflow uses sandboxes."""
    _loops.add(asyncio.get_running_loop())


def uses_sandbox() -> bool:
    """Return whether the calling workflow uses sandboxes."""
    return asyncio.get_running_loop() in _loops
