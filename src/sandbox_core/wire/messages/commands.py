"""Messages about commands and terminals."""

from __future__ import annotations

import shlex

from sandbox_core.wire.messages.base import KeyedRequest, Message, Output, SessionRequest


class CommandRequest(KeyedRequest):
    """Base of the requests that run a command.

    `timeout` is in seconds; None means none. `shell` is the SDK's: True for the backend's default
    shell, False for none, or the words before the command.
    """

    command: tuple[str, ...]
    timeout: float | None = None
    shell: bool | tuple[str, ...] = True
    user: str | None = None

    def summary(self) -> str:
        return self.command[0] if len(self.command) == 1 else shlex.join(self.command)


class ExecRequest(CommandRequest):
    """Run a command to its end."""


class ExecResponse(Message):
    """What a command wrote and its exit code.

    `at_most_once` is why the sandbox cannot tell whether a command was run before, if it cannot.
    """

    stdout: Output = b""
    stderr: Output = b""
    exit_code: int = 0
    at_most_once: str | None = None


class PtyExecStartRequest(CommandRequest):
    """Start a command and answer with what it wrote within `yield_time_s` seconds."""

    tty: bool = False
    yield_time_s: float | None = None
    max_output_tokens: int | None = None


class PtyWriteStdinRequest(KeyedRequest):
    """Write `chars` to a running process (may be empty), and answer with its output.

    The output is what comes after `offset` bytes, those that the workflow has been given. `user`
    is whose process it is. With `ended` the workflow was told that it has ended.
    """

    process_id: int
    chars: str = ""
    yield_time_s: float | None = None
    max_output_tokens: int | None = None
    offset: int = 0
    user: str | None = None
    ended: bool = False

    def summary(self) -> str:
        return f"{self.process_id} {self.chars!r}" if self.chars else f"{self.process_id}"


class PtyResponse(Message):
    """New output of a process; `process_id` is None once it has ended.

    `offset` is where the output goes on, in bytes from its beginning; None if the process is of
    the one worker that has started it. `at_most_once` is as in `ExecResponse`.
    """

    process_id: int | None = None
    output: Output = b""
    exit_code: int | None = None
    original_token_count: int | None = None
    offset: int | None = None
    at_most_once: str | None = None


class PtyResizeRequest(SessionRequest):
    """Set the size of a process's terminal, in characters."""

    process_id: int
    rows: int
    columns: int
    user: str | None = None

    def summary(self) -> str:
        return f"{self.process_id} {self.rows}x{self.columns}"


class PtyTerminateAllRequest(SessionRequest):
    """End every process that was started with `pty_exec_start`, also as these `users`."""

    users: tuple[str, ...] = ()
