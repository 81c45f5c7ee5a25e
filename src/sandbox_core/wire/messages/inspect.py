"""Messages about a sandbox that is found by the backend's id instead of by its session."""

from __future__ import annotations

from sandbox_core.wire.messages.base import Message, SessionRef
from sandbox_core.wire.messages.lifecycle import WorkflowRun


class InspectRequest(Message):
    """Return this worker's session of the sandbox `sandbox_id`, and what runs in the sandbox."""

    sandbox_id: str

    def summary(self) -> str:
        return self.sandbox_id


class RunningCommand(Message):
    """A command that runs in a sandbox.

    `operation_id` is that of the request that started it. `process_id` is the number by which it is
    polled, if it was started with `pty_exec_start`; `tty` means that it has a terminal. `for_s` is
    the time since its start in seconds. `user` runs it; None is the backend's default user.
    """

    operation_id: str
    process_id: int | None = None
    tty: bool = False
    for_s: float = 0.0
    user: str | None = None


class InspectResponse(Message):
    """How a worker holds a sandbox; `session` is None if it does not.

    `users` are the workflows that have the session open, `in_progress` is the number of its
    operations in progress, `idle_s` the time in seconds since one ended. `commands` is None if the
    sandbox could not be asked, or runs its commands without the helper.
    """

    session: SessionRef | None = None
    supports_pty: bool = False
    users: tuple[WorkflowRun, ...] = ()
    in_progress: int = 0
    idle_s: float = 0.0
    commands: tuple[RunningCommand, ...] | None = None
