"""Validates requests before they are sent."""

from __future__ import annotations

import math

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire.messages import (
    CommandRequest,
    ExecRequest,
    Message,
    PtyExecStartRequest,
    PtyWriteStdinRequest,
)
from sandbox_core.wire.summaries import summarize


def check_request(name: str, request: Message) -> None:
    """Check that `request` of operation `name` is valid.

    Raises:
        InvalidRequest: No worker could carry it out.
    """
    if isinstance(request, CommandRequest) and request.shell is False and not request.command:
        raise InvalidRequest(f"{name}: there is no command, and with shell=False no shell.")
    if isinstance(request, CommandRequest):
        _check_words(name, request)
    if isinstance(request, ExecRequest | PtyExecStartRequest):
        _check_seconds(name, "timeout", request.timeout, "None, for no timeout of its own")
    if isinstance(request, PtyExecStartRequest | PtyWriteStdinRequest):
        default = "None, for the backend's default"
        _check_seconds(name, "yield_time_s", request.yield_time_s, default)


def _check_words(name: str, request: CommandRequest) -> None:
    # The operating system would end the argument there.
    shell = () if isinstance(request.shell, bool) else request.shell
    for word in (*request.command, *shell):
        if "\0" in word:
            raise InvalidRequest(
                f"{name}: {summarize(word)!r} contains a null character, which no command may."
            )


def _check_seconds(name: str, argument: str, value: float | None, none: str) -> None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise InvalidRequest(
            f"{name}: {argument} is {value!r}. It must be a number of seconds >= 0, or {none}."
        )
