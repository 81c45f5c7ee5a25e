"""What is seen of commands by those who follow a workflow, and checks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from temporalio.client import Client, Plugin
from temporalio.contrib.workflow_streams import WorkflowStreamClient

from sandbox_core.live import (
    CommandEnded,
    CommandOutput,
    CommandStarted,
    LiveEvent,
    OutputDropped,
    follow,
)
from sandbox_core.wire.live_output import TOPIC
from sandbox_core.wire.messages import load_event


@dataclass
class Seen:
    """What somebody who follows a workflow has seen of one command."""

    command: str
    streams: dict[str, bytes] = field(default_factory=dict)
    pieces: int = 0
    dropped: list[tuple[str, int, int | None]] = field(default_factory=list)
    end: int | str | None = None
    at: dict[str, int] = field(default_factory=dict)

    def see(self, event: LiveEvent, *, exact: bool) -> None:
        assert self.end is None
        match event:
            case CommandEnded():
                self.end = event.exit_code if event.error is None else event.error
            case OutputDropped():
                self._continues(event.stream, event.offset, event.next)
                self.dropped.append((event.stream, event.offset, event.next))
            case CommandOutput():
                self._continues(event.stream, event.offset, event.next)
                assert not exact or len(event.data) == event.next - event.offset
                self.pieces += 1
                self.streams[event.stream] = self.streams.get(event.stream, b"") + event.data

    def _continues(self, stream: str, offset: int, end: int | None) -> None:
        assert offset == self.at.get(stream, 0), "nothing is missing, nothing twice"
        if end is not None:
            self.at[stream] = end


def seen(events: Sequence[LiveEvent], *, exact: bool = True) -> list[Seen]:
    """Return what is seen of each command; `exact` if nothing was redacted."""
    commands: dict[str, Seen] = {}
    for event in events:
        if isinstance(event, CommandStarted):
            assert event.operation_id not in commands
            commands[event.operation_id] = Seen(command=event.command)
        else:
            commands[event.operation_id].see(event, exact=exact)
    return list(commands.values())


def written(events: Sequence[LiveEvent]) -> bytes:
    """Return all output, of whichever command and stream."""
    return b"".join(event.data for event in events if isinstance(event, CommandOutput))


def with_plugins(client: Client, *plugins: Plugin) -> Client:
    """Return a client with these plugins, and no others."""
    config = client.config()
    config["plugins"] = list(plugins)
    return Client(**config)


async def followed(client: Client, workflow_id: str) -> list[LiveEvent]:
    return [event async for event in follow(client, workflow_id)]


async def subscribed(client: Client, workflow_id: str) -> list[LiveEvent]:
    """Return what Temporal's own API yields of a workflow that has ended."""
    stream = WorkflowStreamClient.create(client, workflow_id)
    return [load_event(item.data) async for item in stream.subscribe([TOPIC], result_type=dict)]
