"""Messages of `reap`, which concerns the sandboxes of a namespace, not one session."""

from __future__ import annotations

from sandbox_core.wire.messages.base import Message


class ReapRequest(Message):
    """Find the sandboxes whose workflows are closed, and with `delete` delete them.

    Those whose workflow has been closed for less than `older_than_s` seconds are left alone.
    """

    older_than_s: float
    delete: bool = False

    def summary(self) -> str:
        return "delete" if self.delete else "dry run"


class Reaped(Message):
    """A sandbox whose workflow is closed, or cannot be told.

    `owner` says how it was closed; `closed_s` and `age_s` how long ago that was, and the sandbox
    was made. The outcome is ``orphan`` (a dry run), ``deleted``, or for a `reason` ``kept`` or
    ``failed``.
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
    """What there is, and how many are of open workflows, and of some that were closed lately."""

    sandboxes: tuple[Reaped, ...] = ()
    living: int = 0
    recent: int = 0
