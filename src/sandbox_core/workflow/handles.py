"""The handles that a workflow has of one session: what is deleted is deleted for all of them."""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakKeyDictionary, WeakSet

from temporalio import workflow


class Handle(Protocol):
    """A session object in a workflow."""

    @property
    def session_key(self) -> tuple[str, str]:
        """The provider's name and the session's id."""
        ...

    deleted: bool
    """Whether the sandbox was deleted since the handle was made."""


# Temporal runs each workflow in an event loop of its own.
_handles: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[Handle]] = WeakKeyDictionary()


def add_handle(handle: Handle) -> None:
    """Let `handle` be told when its session is deleted through another one of this workflow."""
    if workflow.in_workflow():
        _handles.setdefault(asyncio.get_running_loop(), WeakSet()).add(handle)


def mark_deleted(deleted: Handle) -> None:
    """Mark every handle that this workflow now has of the session; one that resumes it is new."""
    deleted.deleted = True
    for handle in _handles.get(asyncio.get_running_loop(), ()):
        if handle.session_key == deleted.session_key:
            handle.deleted = True
