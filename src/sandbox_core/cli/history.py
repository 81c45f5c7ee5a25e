"""Reads what workflows have done in their sandboxes from their histories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle

from sandbox_core.wire import operations as ops
from sandbox_core.wire.naming import split_activity_name
from sandbox_core.wire.payloads import decoded

_OUTCOMES = {
    "activity_task_completed_event_attributes": "ok",
    "activity_task_failed_event_attributes": "failed",
    "activity_task_timed_out_event_attributes": "timed out",
    "activity_task_canceled_event_attributes": "cancelled",
}
_COMMANDS = (ops.EXEC.name, ops.PTY_EXEC_START.name, ops.PTY_WRITE_STDIN.name)
OPENING = (ops.CREATE_SESSION.name, ops.RESUME_SESSION.name, ops.START.name)
"""The operations whose responses name the session's sandbox."""


@dataclass(kw_only=True)
class Operation:
    """One sandbox operation of a workflow; sizes are in bytes, durations in seconds."""

    operation: str
    provider: str
    session_id: str | None = None
    """None where the input cannot be read here, as that of a create that has not succeeded."""

    what: str = ""
    """The summary in the history: a command, a path; without likely secrets."""

    scheduled_at: str
    """In UTC, as in ISO 8601."""

    waited_s: float | None = None
    """From being scheduled to the start of the last attempt."""

    took_s: float | None = None
    """How long the last attempt took."""

    attempts: int | None = None
    """None while no attempt has ended: the history has it only then."""

    worker: str | None = None
    """The identity of the worker that ran the last attempt."""

    outcome: str = "pending"
    """``pending``, ``ok``, ``cancelled``, ``timed out``, or the type of the error."""

    exit_code: int | None = None
    """A command's; None for anything else, and where the result cannot be read here."""

    error: str | None = None
    operation_id: str | None = None
    """The idempotency key of a command."""

    sandbox_id: str | None = None
    """The backend's id of the sandbox that was opened, as the worker told the workflow."""

    worker_queue: str | None = None
    """The own queue of the worker that opened it."""

    input_bytes: int = 0
    output_bytes: int = 0


async def operations_of(
    client: Client, handle: WorkflowHandle[object, object]
) -> AsyncIterator[Operation]:
    """Yield the sandbox operations of a run, in the order in which they were scheduled.

    Raises:
        RPCError: The server does not answer, refuses, or has no such workflow.
    """
    found: dict[int, Operation] = {}
    scheduled: dict[int, datetime] = {}
    started: dict[int, datetime] = {}
    async for event in handle.fetch_history_events():
        if event.HasField("activity_task_scheduled_event_attributes"):
            operation = await _scheduled(client, event)
            if operation is not None:
                found[event.event_id] = operation
                scheduled[event.event_id] = _time(event.event_time)
        elif event.HasField("activity_task_started_event_attributes"):
            of = event.activity_task_started_event_attributes
            if of.scheduled_event_id in found:
                operation = found[of.scheduled_event_id]
                operation.attempts, operation.worker = of.attempt, of.identity
                began = started[of.scheduled_event_id] = _time(event.event_time)
                operation.waited_s = (began - scheduled[of.scheduled_event_id]).total_seconds()
        else:
            await _ended(client, event, found, started)
    for each in found.values():
        yield each


async def _scheduled(client: Client, event: HistoryEvent) -> Operation | None:
    of = event.activity_task_scheduled_event_attributes
    names = split_activity_name(of.activity_type.name)
    if names is None:
        return None
    provider, name = names
    request = await decoded(client, of.input.payloads[:1])
    summary = await decoded(client, [event.user_metadata.summary])
    what = summary if isinstance(summary, str) else ""
    return Operation(
        operation=name,
        provider=provider,
        session_id=_session_id(request),
        operation_id=_text(request, "operation_id"),
        what=what.removeprefix(name).removeprefix(": "),
        scheduled_at=_time(event.event_time).isoformat(timespec="milliseconds"),
        input_bytes=sum(map(_size, of.input.payloads)),
    )


async def _ended(
    client: Client,
    event: HistoryEvent,
    found: Mapping[int, Operation],
    started: Mapping[int, datetime],
) -> None:
    """Complete the operation whose end `event` is, if it is one's."""
    kind = event.WhichOneof("attributes")
    if kind not in _OUTCOMES:
        return
    end, outcome = getattr(event, kind), _OUTCOMES[kind]
    operation = found.get(end.scheduled_event_id)
    if operation is None:
        return
    operation.outcome = outcome
    began = started.get(end.scheduled_event_id)
    if began is not None:
        operation.took_s = (_time(event.event_time) - began).total_seconds()
    if outcome == "ok":
        payloads = end.result.payloads
        operation.output_bytes = sum(map(_size, payloads))
        if operation.session_id is None or operation.operation in (*_COMMANDS, *OPENING):
            response = await decoded(client, payloads[:1])
            operation.session_id = operation.session_id or _session_id(response)
            operation.exit_code = _exit_code(operation.operation, response)
            if operation.operation in OPENING:
                operation.sandbox_id = _text(response, "sandbox_id")
                operation.worker_queue = _text(response, "worker_queue")
    elif outcome != "cancelled":
        operation.error = end.failure.message
        operation.outcome = end.failure.application_failure_info.type or outcome


def _exit_code(operation: str, response: object) -> int | None:
    if not isinstance(response, dict):
        return None
    # Messages leave out what is their default; a process that is polled may have none yet.
    code = response.get("exit_code", 0 if operation == ops.EXEC.name else None)
    return code if isinstance(code, int) else None


def _session_id(message: object) -> str | None:
    session = message.get("session") if isinstance(message, dict) else None
    return _text(session, "session_id")


def _text(message: object, field: str) -> str | None:
    found = message.get(field) if isinstance(message, dict) else None
    return found if isinstance(found, str) else None


def _size(payload: Payload) -> int:
    """Return the size of a payload, wherever it is stored."""
    return sum(each.size_bytes for each in payload.external_payloads) or payload.ByteSize()


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(timezone.utc)
