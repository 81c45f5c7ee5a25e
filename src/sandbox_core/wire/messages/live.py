"""Live output: what is published of a command while it runs."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter

from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages.base import Message, Output


class LiveRequest(Message):
    """Asks for the publication of the output of the command `operation_id`.

    `max_bytes` limits each stream. `published` says, by stream, from which offset on the workflow
    does not have the output, where an earlier attempt has published some.
    """

    operation_id: str
    max_bytes: int
    published: dict[str, int] = Field(default_factory=dict)


class CommandEvent(Message):
    """Base of what happens to a command; `kind` is ``started``, ``output`` and so on."""

    operation_id: str
    """Identifies the command."""

    kind: str

    def dump(self) -> JsonObject:
        """Return the JSON object to send."""
        return {"operation_id": self.operation_id, "kind": self.kind, **super().dump()}


class CommandStarted(CommandEvent):
    """A command was started.

    Attributes:
        command: The command in one line, without likely secrets.
        provider: The provider's name.
        session_id: The session.
    """

    kind: Literal["started"] = "started"
    command: str
    provider: str
    session_id: str


class CommandOutput(CommandEvent):
    """A command wrote something.

    Attributes:
        stream: ``stdout``, ``stderr``, or ``output`` for both in one.
        offset: How many bytes the command had written to the stream before.
        next: The offset behind it.
        data: What the command wrote, without secrets.
    """

    kind: Literal["output"] = "output"
    stream: str
    offset: int
    next: int
    data: Output


class OutputDropped(CommandEvent):
    """Something that a command wrote is not published.

    Attributes:
        stream: As in `CommandOutput`.
        offset: As in `CommandOutput`.
        next: The offset behind it; None if nothing more of the stream is published.
    """

    kind: Literal["dropped"] = "dropped"
    stream: str
    offset: int
    next: int | None = None


class CommandEnded(CommandEvent):
    """A command ended.

    Attributes:
        exit_code: The exit code; None if there is none.
        error: Why there is none.
    """

    kind: Literal["ended"] = "ended"
    exit_code: int | None = None
    error: str | None = None


LiveEvent: TypeAlias = CommandStarted | CommandOutput | OutputDropped | CommandEnded
"""Something that happened to a command, in the order in which it happened."""

_EVENTS: TypeAdapter[LiveEvent] = TypeAdapter(Annotated[LiveEvent, Field(discriminator="kind")])


def load_event(value: object) -> LiveEvent:
    """Return the event that `dump` has made this of.

    Raises:
        ValidationError: It is something else.
    """
    return _EVENTS.validate_python(value)
