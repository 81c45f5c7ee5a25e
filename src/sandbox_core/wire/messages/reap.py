"""Messages of `reap`, which concerns the sandboxes of a namespace, not one session."""

from __future__ import annotations

from sandbox_core.wire.messages.base import Message


class ReapRequest(Message):
    """Find the sandboxes of closed workflows and, with `delete`, delete them.

    Sandboxes whose workflow closed less than `older_than_s` seconds ago are skipped.
    """

    older_than_s: float
    delete: bool = False

    def summary(self) -> str:
        return "delete" if self.delete else "dry run"


class Reaped(Message):
    """A sandbox whose workflow is closed or unknown.

    `owner` is the workflow's status, `closed_s` the time since it closed, `age_s` the sandbox's
    age. The outcome is ``orphan`` (dry run), ``deleted``, ``kept`` or ``failed``; the last two have
    a `reason`.
    """

    sandbox_id: str
    workflow_id: str
    run_id: str
    owner: str = ""
    closed_s: float | None = None
    age_s: float | None = None
    outcome: str
    reason: str = ""


class ReapResponse(Message):
    """The orphans, and the number of sandboxes of open and of recently closed workflows."""

    sandboxes: tuple[Reaped, ...] = ()
    living: int = 0
    recent: int = 0
