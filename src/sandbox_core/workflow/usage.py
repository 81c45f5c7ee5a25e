"""Counts what a session has used in a workflow."""

from __future__ import annotations

from dataclasses import dataclass

from agents.sandbox.errors import ExecTimeoutError
from temporalio import workflow

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire.messages import Message, OpenSessionResponse
from sandbox_core.wire.messages.commands import CommandRequest, ExecResponse


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a session has used in this workflow, through one handle.

    All of it is the same when the workflow is replayed.
    """

    seconds: float = 0.0
    """How long the workflow has had the sandbox, in seconds of its own time: from the end of its
    creation or, for one that it resumed, of the resume, to its deletion or to now. If another took
    the place of a sandbox that was lost or deleted, the sum of both."""

    commands: int = 0
    """The commands that were run with `exec` and `pty_exec_start`, those included that timed out
    and whose outcome is unknown."""

    bytes_in: int = 0
    """The content sent to the sandbox: files, archives, and input of commands. In bytes."""

    bytes_out: int = 0
    """The content received from it: files, archives, and output of commands. In bytes."""


class UsageMeter:
    """Counts for one handle of a session."""

    def __init__(self) -> None:
        self.sandbox_since = _now()
        """When the workflow received the present sandbox, as a Unix time."""

        self._before = 0.0
        """For how many seconds it had earlier ones."""

        self._is_gone = False
        self._commands = self._bytes_in = self._bytes_out = 0

    def answered(
        self, request: Message, body: bytes | None, response: Message | bytes | None
    ) -> None:
        """Count an operation that succeeded."""
        if isinstance(response, ExecResponse) and response.unfinished:
            return  # Another activity asks for its result.
        self._commands += isinstance(request, CommandRequest)
        self._bytes_in += len(body or b"") + request.content_bytes()
        self._bytes_out += (
            response.content_bytes() if isinstance(response, Message) else len(response or b"")
        )

    def failed(self, request: Message, error: Exception) -> None:
        """Count an operation that failed."""
        if isinstance(error, ExecTimeoutError | OutcomeUnknown):
            self._commands += isinstance(request, CommandRequest)

    def sandbox_deleted(self) -> None:
        """End the time of the sandbox."""
        self._before += self._present
        self._is_gone = True

    def resumed(self, opened: OpenSessionResponse) -> None:
        """Begin the time of another sandbox, if the session has been opened with another one."""
        if opened.restored or self._is_gone:
            self.sandbox_deleted()
            self.sandbox_since, self._is_gone = _now(), False

    @property
    def _present(self) -> float:
        """For how many seconds it has had the present sandbox."""
        return 0.0 if self._is_gone else _now() - self.sandbox_since

    def usage(self) -> Usage:
        """Return what was counted so far."""
        return Usage(
            seconds=self._before + self._present,
            commands=self._commands,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
        )


def _now() -> float:
    # A session that is made outside of workflows, to look at it, uses nothing.
    return workflow.time() if workflow.in_workflow() else 0.0
