"""Messages for commands and terminals."""

from __future__ import annotations

import shlex
from typing import Literal

from pydantic import Field

from sandbox_core.wire.messages.base import KeyedRequest, Message, Output, SessionRequest
from sandbox_core.wire.messages.live import LiveRequest


class OutputRequest(KeyedRequest):
    """Base of the requests that wait for a command's output, to be published as `live` asks."""

    live: LiveRequest | None = None


class OutputResponse(Message):
    """Base of the responses to them.

    `published` says, by stream, up to which offset the output is published; empty if it is all in
    the response.
    """

    published: dict[str, int] = Field(default_factory=dict)


class CommandRequest(OutputRequest):
    """Base of the requests that run a command.

    `timeout` is in seconds; None means no timeout. `shell` is True for the backend's default shell,
    False for none, or the words of another shell.
    """

    command: tuple[str, ...]
    timeout: float | None = None
    shell: bool | tuple[str, ...] = True
    user: str | None = None

    def summary(self) -> str:
        return self.command[0] if len(self.command) == 1 else shlex.join(self.command)


class ExecRequest(CommandRequest):
    """Run a command and wait for it.

    With `within_s`, a local activity asks: wait at most so many seconds, only under the helper, and
    return a short result only. Otherwise the response is `unfinished`.
    """

    within_s: float | None = None


class ExecResponse(OutputResponse):
    """A command's output and exit code.

    `at_most_once` is why the command ran without the helper, if it did. `unfinished` means that
    the rest is empty, because the request's `within_s` did not do; the same request without it gets
    the result. A local activity's response has its `request`, of which the history has no other
    record.
    """

    stdout: Output = b""
    stderr: Output = b""
    exit_code: int = 0
    at_most_once: str | None = None
    unfinished: Literal["started", "not_started"] | None = None
    request: ExecRequest | None = None

    def content_bytes(self) -> int:
        return len(self.stdout) + len(self.stderr)


class PtyExecStartRequest(CommandRequest):
    """Start a command and return its output of the first `yield_time_s` seconds."""

    tty: bool = False
    yield_time_s: float | None = None
    max_output_tokens: int | None = None


class PtyWriteStdinRequest(OutputRequest):
    """Write `chars` (may be empty) to a running process and return its output.

    The output starts at `offset`, the number of bytes that the workflow already has. `user` owns
    the process. `ended` means that the workflow was told of its end. `until_output` returns as soon
    as there is any output; `hang_up` ends the process.
    """

    process_id: int
    chars: str = ""
    yield_time_s: float | None = None
    max_output_tokens: int | None = None
    offset: int = 0
    user: str | None = None
    ended: bool = False
    until_output: bool = False
    hang_up: bool = False

    def summary(self) -> str:
        return f"{self.process_id} {self.chars!r}" if self.chars else f"{self.process_id}"

    def content_bytes(self) -> int:
        return len(self.chars.encode("utf-8", "surrogatepass"))


class PtyResponse(OutputResponse):
    """New output of a process; `process_id` is None once it has ended.

    `offset` is where the next output starts, in bytes; None if only the worker that started the
    process can poll it. `at_most_once` is as in `ExecResponse`.
    """

    process_id: int | None = None
    output: Output = b""
    exit_code: int | None = None
    original_token_count: int | None = None
    offset: int | None = None
    at_most_once: str | None = None

    def content_bytes(self) -> int:
        return len(self.output)


class PtyResizeRequest(SessionRequest):
    """Resize a process's terminal, in characters."""

    process_id: int
    rows: int
    columns: int
    user: str | None = None

    def summary(self) -> str:
        return f"{self.process_id} {self.rows}x{self.columns}"


class PtyTerminateAllRequest(SessionRequest):
    """End every process started with `pty_exec_start`, those of `users` included."""

    users: tuple[str, ...] = ()
