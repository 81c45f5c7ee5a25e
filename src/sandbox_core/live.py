"""Follows the commands of a workflow from outside, live if it publishes their output."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import TimeoutType
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client

from sandbox_core.errors import SandboxCoreError, SessionNotOpen
from sandbox_core.history import (
    Ended,
    EndedLocally,
    Happened,
    RunEnded,
    Scheduled,
    Signaled,
    read_history,
)
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.live_output import PUBLISH_SIGNAL, published_stream
from sandbox_core.wire.messages import (
    CommandEnded,
    CommandOutput,
    CommandStarted,
    LiveEvent,
    OutputDropped,
)
from sandbox_core.wire.payloads import decoded
from sandbox_core.wire.summaries import summarize

__all__ = [
    "CommandEnded",
    "CommandOutput",
    "CommandStarted",
    "LiveEvent",
    "OutputDropped",
    "follow",
]

_UNREADABLE = "its result cannot be read here"

_MessageT = TypeVar("_MessageT", bound=m.Message)


async def follow(
    client: Client, workflow_id: str, *, run_id: str | None = None, wait: bool = True
) -> AsyncGenerator[LiveEvent, None]:
    """Yield what happens to the commands of a workflow, from its beginning on.

    It is read from the workflow's history, to which nothing is added. Without `LiveOutput`, a
    command's output comes with its end. With payloads that the client cannot read, such as those in
    a storage that it does not have, outputs are missing.

    Args:
        client: A client with the data converter and plugins of those that start the workflow.
        workflow_id: The workflow.
        run_id: The run to begin with; by default the latest. Runs that continue it follow.
        wait: Whether to wait for what is still to come, until the workflow ends.

    Raises:
        RPCError: The server does not answer, refuses, or has no such workflow.
    """
    while True:
        commands, following = _Commands(client), None
        handle = client.get_workflow_handle(workflow_id, run_id=run_id)
        async for event in read_history(handle, wait=wait):
            if isinstance(event, RunEnded):
                following = event.next_run_id
            async for happened in commands.happened(event):
                yield happened
        if following is None:
            return
        run_id = following


@dataclass(kw_only=True)
class _Command:
    """One command: up to where its streams were yielded, and whether it has ended."""

    operation_id: str
    at: dict[str, int] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    """An activity that waits for a command's output from the offset `since` on."""

    operation: str
    session_id: str
    command: _Command
    since: int = 0


class _Commands:
    """The commands of one run."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._commands: dict[str, _Command] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._processes: dict[tuple[str, int], _Command] = {}
        self._terminating: dict[int, str] = {}
        self._sequences: dict[str, int] = {}

    async def happened(self, event: Happened) -> AsyncIterator[LiveEvent]:
        """Yield what something that happened says of commands."""
        events: Iterable[LiveEvent] = ()
        match event:
            case Scheduled():
                events = await self._scheduled(event)
            case Signaled(name=name) if name == PUBLISH_SIGNAL:
                events = self._published(await self._decoded(event.arguments))
            case Ended(outcome="ok"):
                waiting = self._waiting.pop(event.scheduled_id, None)
                if waiting is not None:
                    events = self._answered(waiting, await self._decoded(event.result))
                elif event.scheduled_id in self._terminating:
                    events = self._terminated(self._terminating.pop(event.scheduled_id))
            case EndedLocally(outcome="ok"):
                events = self._ran(event.provider, await self._decoded(event.result))
            case EndedLocally(failure=Failure() as failure):
                events = self._failed_locally(event, await self._decoded([event.summary]), failure)
            case Ended(failure=Failure() as failure):
                events = self._failed(event.scheduled_id, failure)
            case RunEnded():
                events = self._left()
        for each in events:
            yield each

    def _left(self) -> Iterator[LiveEvent]:
        """Yield the ends of the commands that have not ended before their workflow."""
        for command in self._commands.values():
            yield from self._end(command, error="its workflow has ended")

    async def _decoded(self, payloads: Sequence[Payload]) -> object:
        return await decoded(self._client, payloads[:1])

    async def _scheduled(self, event: Scheduled) -> Iterable[LiveEvent]:
        name = event.operation
        if name == ops.PTY_WRITE_STDIN.name:
            polls = _message(m.PtyWriteStdinRequest, await self._decoded(event.arguments))
            if polls is not None:
                self._polls(event.event_id, polls)
        elif name in (ops.EXEC.name, ops.PTY_EXEC_START.name):
            runs = _message(m.CommandRequest, await self._decoded(event.arguments))
            if runs is not None:
                return self._runs(event.event_id, event.provider, name, runs)
        elif name == ops.PTY_TERMINATE_ALL.name:
            ends = _message(m.PtyTerminateAllRequest, await self._decoded(event.arguments))
            if ends is not None:
                self._terminating[event.event_id] = ends.session.session_id
        return ()

    def _polls(self, event_id: int, request: m.PtyWriteStdinRequest) -> None:
        session_id = request.session.session_id
        command = self._processes.get((session_id, request.process_id))
        if command is not None:
            self._waiting[event_id] = _Waiting(
                operation=ops.PTY_WRITE_STDIN.name,
                session_id=session_id,
                command=command,
                since=request.offset,
            )

    def _runs(
        self, event_id: int, provider: str, operation: str, request: m.CommandRequest
    ) -> Iterable[LiveEvent]:
        command, started = self._command_of(provider, request)
        self._waiting[event_id] = _Waiting(
            operation=operation, session_id=request.session.session_id, command=command
        )
        return started

    def _command_of(
        self, provider: str, request: m.CommandRequest
    ) -> tuple[_Command, Iterable[LiveEvent]]:
        """Return the command of a request, and its start if it is new."""
        operation_id = request.operation_id
        known = self._commands.get(operation_id)
        if known is not None:
            return known, ()  # It was asked for again, at another worker.
        command = self._commands[operation_id] = _Command(operation_id=operation_id)
        started = CommandStarted(
            operation_id=operation_id,
            command=summarize(request.summary()),
            provider=provider,
            session_id=request.session.session_id,
        )
        return command, (started,)

    def _published(self, signal: object) -> Iterator[LiveEvent]:
        if not isinstance(signal, dict):
            return
        publisher, sequence = str(signal.get("publisher_id")), signal.get("sequence")
        if published_stream(publisher) is None or not isinstance(sequence, int):
            return  # The application's own.
        if sequence <= self._sequences.get(publisher, -1):
            return
        self._sequences[publisher] = sequence
        for event in self._items(signal):
            command = self._commands.get(event.operation_id)
            if command is not None:
                yield from self._new(command, event)

    def _items(self, signal: dict[str, object]) -> list[LiveEvent]:
        """Return the events of a signal; none if it is not made as our workers make it."""
        converter = self._client.data_converter.payload_converter
        items = signal.get("items")
        try:
            payloads = [
                Payload.FromString(base64.b64decode(item["data"]))
                for item in (items if isinstance(items, list) else ())
            ]
            return [m.load_event(converter.from_payload(each)) for each in payloads]
        except Exception:  # noqa: BLE001 - anybody can signal anything
            return []

    def _new(self, command: _Command, event: LiveEvent) -> Iterator[LiveEvent]:
        """Yield what is new of a piece of a stream."""
        match event:
            case OutputDropped(next=None):
                yield event
            case CommandOutput() | OutputDropped():
                at, end = command.at.get(event.stream, 0), event.next or 0
                if end <= at:
                    return
                command.at[event.stream] = end
                if (
                    isinstance(event, CommandOutput)
                    and event.offset < at
                    and len(event.data) == end - event.offset
                ):
                    new = event.data[at - event.offset :]
                    event = event.model_copy(update={"offset": at, "data": new})
                yield event

    def _answered(self, waiting: _Waiting, response: object) -> Iterator[LiveEvent]:
        if waiting.operation == ops.EXEC.name:
            return self._exited(waiting.command, _message(m.ExecResponse, response))
        return self._polled(waiting, _message(m.PtyResponse, response))

    def _exited(self, command: _Command, result: m.ExecResponse | None) -> Iterator[LiveEvent]:
        if result is None:
            yield from self._end(command, error=_UNREADABLE)
            return
        if not result.published:
            yield from self._output(command, "stdout", result.stdout, 0, None)
            yield from self._output(command, "stderr", result.stderr, 0, None)
        yield from self._end(command, exit_code=result.exit_code)

    def _polled(self, waiting: _Waiting, polled: m.PtyResponse | None) -> Iterator[LiveEvent]:
        if polled is None:
            return
        command = waiting.command
        if not polled.published:
            # A process of the backend's own has no offsets.
            since = waiting.since if polled.offset is not None else command.at.get("output", 0)
            yield from self._output(command, "output", polled.output, since, polled.offset)
        if polled.process_id is None:
            yield from self._end(command, exit_code=polled.exit_code)
        else:
            self._processes[waiting.session_id, polled.process_id] = command

    def _ran(self, provider: str, response: object) -> Iterator[LiveEvent]:
        """Yield what the response to a local activity says, which ran one short command."""
        result = _message(m.ExecResponse, response)
        if result is None or result.request is None:
            return  # An activity asks for the result.
        command, started = self._command_of(provider, result.request)
        yield from started
        yield from self._exited(command, result)

    def _failed_locally(
        self, event: EndedLocally, summary: object, failure: Failure
    ) -> Iterator[LiveEvent]:
        if _is_asked_again(failure):
            return
        command = _Command(operation_id=f"event-{event.event_id}")
        yield CommandStarted(
            operation_id=command.operation_id,
            command=str(summary).removeprefix(f"{event.operation}: "),
            provider=event.provider,
            session_id="",  # The history does not have it.
        )
        yield from self._end(command, error=failure.message)

    def _terminated(self, session_id: str) -> Iterator[LiveEvent]:
        for (of, _), command in self._processes.items():
            if of == session_id:
                yield from self._end(command, error="terminated")

    def _failed(self, scheduled: int, failure: Failure) -> Iterator[LiveEvent]:
        waiting = self._waiting.pop(scheduled, None)
        if waiting is None or waiting.operation == ops.PTY_WRITE_STDIN.name:
            return  # The process may go on.
        cause = failure.cause if failure.HasField("activity_failure_info") else failure
        if _is_asked_again(cause):
            return
        yield from self._end(waiting.command, error=cause.message)

    def _output(
        self, command: _Command, stream: str, data: bytes, offset: int, end: int | None
    ) -> Iterator[LiveEvent]:
        if data:
            yield from self._new(
                command,
                CommandOutput(
                    operation_id=command.operation_id,
                    stream=stream,
                    offset=offset,
                    next=offset + len(data) if end is None else end,
                    data=data,
                ),
            )

    def _end(
        self, command: _Command, *, exit_code: int | None = None, error: str | None = None
    ) -> Iterator[LiveEvent]:
        if not command.ended:
            command.ended = True
            yield CommandEnded(operation_id=command.operation_id, exit_code=exit_code, error=error)


def _is_asked_again(failure: Failure) -> bool:
    return failure.application_failure_info.type == SessionNotOpen.__name__ or (
        failure.timeout_failure_info.timeout_type == TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
    )


def _message(model: type[_MessageT], value: object) -> _MessageT | None:
    try:
        return model.model_validate(value)
    except (ValidationError, SandboxCoreError):  # Not what it seemed to be.
        return None
