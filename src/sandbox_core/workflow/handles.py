"""A workflow's handles of one session: deleting through one marks all of them."""

from __future__ import annotations

from typing import Protocol
from weakref import WeakSet

from temporalio import workflow

from sandbox_core.workflow.per_workflow import PerWorkflow


class Handle(Protocol):
    """A session object in a workflow."""

    @property
    def session_key(self) -> tuple[str, str]:
        """The provider's name and the session's id."""
        ...

    def mark_deleted(self) -> None:
        """Note that the sandbox was deleted after the handle was created."""
        ...


_handles: PerWorkflow[WeakSet[Handle]] = PerWorkflow(WeakSet)
_created: PerWorkflow[set[tuple[str, str]]] = PerWorkflow(set)


def add_handle(handle: Handle) -> None:
    """Register `handle`, so that a delete through another handle of this workflow marks it."""
    if workflow.in_workflow():
        _handles.get().add(handle)


def note_created(handle: Handle) -> None:
    """Note that this workflow created the session of `handle`."""
    if workflow.in_workflow():
        _created.get().add(handle.session_key)


def is_guest(handle: Handle) -> bool:
    """Return whether this is a child workflow that uses the sandbox of another workflow."""
    if not workflow.in_workflow() or workflow.info().parent is None:
        return False
    return handle.session_key not in _created.get()


def mark_deleted(deleted: Handle) -> None:
    """Mark this workflow's current handles of the session; a later resume makes a fresh one."""
    deleted.mark_deleted()
    for handle in _handles.get():
        if handle.session_key == deleted.session_key:
            handle.mark_deleted()
