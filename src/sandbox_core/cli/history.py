"""The operations of a workflow, each with its outcome, read from its history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHandle

from sandbox_core.history import Ended, EndedLocally, Scheduled, Started, read_history
from sandbox_core.wire import operations as ops
from sandbox_core.wire.payloads import decoded

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
    async for event in read_history(handle):
        match event:
            case Scheduled():
                found[event.event_id] = await _scheduled(client, event)
                scheduled[event.event_id] = event.at
            case Started():
                operation = found[event.scheduled_id]
                operation.attempts, operation.worker = event.attempt, event.worker
                started[event.scheduled_id] = event.at
                operation.waited_s = (event.at - scheduled[event.scheduled_id]).total_seconds()
            case Ended():
                operation = found[event.scheduled_id]
                began = started.get(event.scheduled_id)
                if began is not None:
                    operation.took_s = (event.at - began).total_seconds()
                await _complete(client, operation, event)
            case EndedLocally():
                local = await _local(client, event)
                if local is not None:
                    found[event.event_id] = local
    for each in found.values():
        yield each


async def _scheduled(client: Client, event: Scheduled) -> Operation:
    request = await decoded(client, event.arguments[:1])
    operation = await _requested(client, event, event.at, request)
    operation.input_bytes = sum(map(_size, event.arguments))
    return operation


async def _local(client: Client, event: EndedLocally) -> Operation | None:
    """Return a local activity's operation; None if an activity followed that has its result."""
    response = await decoded(client, event.result[:1])
    if _text(response, "unfinished") is not None:
        return None
    request = response.get("request") if isinstance(response, dict) else None
    operation = await _requested(client, event, event.scheduled_at, request)
    operation.waited_s = 0.0
    # Core records the end of a short one up to milliseconds before its beginning.
    operation.took_s = max((event.at - event.scheduled_at).total_seconds(), 0.0)
    operation.attempts, operation.worker = event.attempt, event.worker
    await _complete(client, operation, event)
    return operation


async def _requested(
    client: Client, event: Scheduled | EndedLocally, at: datetime, request: object
) -> Operation:
    summary = await decoded(client, [event.summary])
    what = summary if isinstance(summary, str) else ""
    return Operation(
        operation=event.operation,
        provider=event.provider,
        session_id=_session_id(request),
        operation_id=_text(request, "operation_id"),
        what=what.removeprefix(event.operation).removeprefix(": "),
        scheduled_at=at.isoformat(timespec="milliseconds"),
    )


async def _complete(client: Client, operation: Operation, ended: Ended | EndedLocally) -> None:
    operation.outcome = ended.outcome
    if ended.outcome == "ok":
        operation.output_bytes = sum(map(_size, ended.result))
        if operation.session_id is None or operation.operation in (*_COMMANDS, *OPENING):
            response = await decoded(client, ended.result[:1])
            operation.session_id = operation.session_id or _session_id(response)
            operation.exit_code = _exit_code(operation.operation, response)
            if operation.operation in OPENING:
                operation.sandbox_id = _text(response, "sandbox_id")
                operation.worker_queue = _text(response, "worker_queue")
    elif ended.outcome != "cancelled" and ended.failure is not None:
        operation.error = ended.failure.message
        operation.outcome = ended.failure.application_failure_info.type or ended.outcome


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
