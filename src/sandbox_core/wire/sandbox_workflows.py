"""Which of the workflows of a worker use sandboxes: only these are treated in a special way."""

from __future__ import annotations

import asyncio
import weakref

# Temporal runs each workflow in an event loop of its own.
_loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def note_use_of_sandbox() -> None:
    """Note that the workflow which calls this uses sandboxes of sandbox-core."""
    _loops.add(asyncio.get_running_loop())


def uses_sandbox() -> bool:
    """Return whether the workflow which calls this does."""
    return asyncio.get_running_loop() in _loops
