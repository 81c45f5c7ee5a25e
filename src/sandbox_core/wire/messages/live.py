"""What is published of a command while it runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sandbox_core.wire.messages.base import Message, Output


class LiveRequest(Message):
    """Asks for the publication of the output of the command `operation_id`.

    `max_bytes` limits each stream. `published` says, by stream, from which offset on the workflow
    does not have the output, where an earlier attempt has published some.
    """

    operation_id: str
    max_bytes: int
    published: dict[str, int] = Field(default_factory=dict)


class LiveEvent(Message):
    """Something that happened to a command, in the order in which it happened.

    Attributes:
        operation_id: Identifies the command.
        kind: What happened; says which of the other attributes are there.
        command: ``started``: the command in one line, without likely secrets.
        provider: ``started``: the provider's name.
        session_id: ``started``: the session.
        stream: ``output``, ``dropped``: ``stdout``, ``stderr``, or ``output`` for both in one.
        offset: ``output``, ``dropped``: how many bytes the command had written to the stream.
        next: The offset behind it; None if nothing more of the stream is published.
        data: ``output``: what the command wrote, without secrets.
        exit_code: ``ended``: the exit code; None if there is none.
        error: ``ended``: why there is no exit code.
    """

    operation_id: str
    kind: Literal["started", "output", "dropped", "ended"]
    command: str | None = None
    provider: str | None = None
    session_id: str | None = None
    stream: str | None = None
    offset: int | None = None
    next: int | None = None
    data: Output = b""
    exit_code: int | None = None
    error: str | None = None
