"""Reads from workflows' histories what they did in their sandboxes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal, TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHandle

from sandbox_core.wire.naming import split_activity_name

Outcome: TypeAlias = Literal["ok", "failed", "timed out", "cancelled"]


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """An operation of a sandbox was scheduled; `event_id` identifies it from then on."""

    event_id: int
    at: datetime
    provider: str
    operation: str
    arguments: Sequence[Payload]
    """The request, and perhaps raw bytes."""

    summary: Payload


@dataclass(frozen=True, kw_only=True)
class Started:
    """The last attempt of an operation was started; histories have this when it has ended."""

    scheduled_id: int
    at: datetime
    attempt: int
    worker: str
    """The identity of the worker."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """An operation has ended."""

    scheduled_id: int
    at: datetime
    outcome: Outcome
    result: Sequence[Payload] = ()
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class EndedLocally:
    """An operation has ended that was a local activity; this is its only event."""

    event_id: int
    at: datetime
    scheduled_at: datetime
    provider: str
    operation: str
    attempt: int
    worker: str
    summary: Payload
    outcome: Outcome
    result: Sequence[Payload] = ()
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class Signaled:
    """The workflow was signaled."""

    name: str
    arguments: Sequence[Payload]


@dataclass(frozen=True, kw_only=True)
class RunEnded:
    """The run has ended; `next_run_id` is that of the run that continues it, if there is one."""

    next_run_id: str | None


Happened: TypeAlias = Scheduled | Started | Ended | EndedLocally | Signaled | RunEnded


async def read_history(
    handle: WorkflowHandle[object, object], *, wait: bool = False
) -> AsyncGenerator[Happened, None]:
    """Yield what happened in one run of a workflow.

    Args:
        handle: The workflow; its latest run, unless the handle names one.
        wait: Whether to wait for what is still to come, until the run ends.

    Raises:
        RPCError: The server does not answer, refuses, or has no such workflow.
    """
    ours: set[int] = set()
    worker = ""
    async for event in handle.fetch_history_events(wait_new_event=wait):
        if event.HasField("workflow_task_completed_event_attributes"):
            worker = event.workflow_task_completed_event_attributes.identity
        happened = _happened(event, worker)
        if isinstance(happened, Scheduled):
            ours.add(happened.event_id)
        elif isinstance(happened, Started | Ended) and happened.scheduled_id not in ours:
            continue  # An activity of somebody else's.
        if happened is not None:
            yield happened


_RUN_ENDS = {
    f"workflow_execution_{how}_event_attributes"
    for how in ("completed", "failed", "timed_out", "canceled", "terminated", "continued_as_new")
}


def _happened(event: HistoryEvent, worker: str) -> Happened | None:
    at = _time(event.event_time)
    match event.WhichOneof("attributes"):
        case "activity_task_scheduled_event_attributes":
            scheduled = event.activity_task_scheduled_event_attributes
            names = split_activity_name(scheduled.activity_type.name)
            if names is None:
                return None
            return Scheduled(
                event_id=event.event_id,
                at=at,
                provider=names[0],
                operation=names[1],
                arguments=scheduled.input.payloads,
                summary=event.user_metadata.summary,
            )
        case "activity_task_started_event_attributes":
            started = event.activity_task_started_event_attributes
            return Started(
                scheduled_id=started.scheduled_event_id,
                at=at,
                attempt=started.attempt,
                worker=started.identity,
            )
        case "activity_task_completed_event_attributes":
            completed = event.activity_task_completed_event_attributes
            result = completed.result.payloads
            return Ended(
                scheduled_id=completed.scheduled_event_id, at=at, outcome="ok", result=result
            )
        case "activity_task_failed_event_attributes":
            failed = event.activity_task_failed_event_attributes
            return _failed(failed.scheduled_event_id, at, "failed", failed.failure)
        case "activity_task_timed_out_event_attributes":
            timed_out = event.activity_task_timed_out_event_attributes
            return _failed(timed_out.scheduled_event_id, at, "timed out", timed_out.failure)
        case "activity_task_canceled_event_attributes":
            canceled = event.activity_task_canceled_event_attributes
            failure = Failure(message="cancelled")
            return _failed(canceled.scheduled_event_id, at, "cancelled", failure)
        case "marker_recorded_event_attributes":
            return _ended_locally(event, worker)
        case "workflow_execution_signaled_event_attributes":
            signaled = event.workflow_execution_signaled_event_attributes
            return Signaled(name=signaled.signal_name, arguments=signaled.input.payloads)
        case kind if kind in _RUN_ENDS:
            following = getattr(getattr(event, kind), "new_execution_run_id", "")
            return RunEnded(next_run_id=str(following) or None)
    return None


def _failed(scheduled_id: int, at: datetime, outcome: Outcome, failure: Failure) -> Ended:
    return Ended(scheduled_id=scheduled_id, at=at, outcome=outcome, failure=failure)


def _ended_locally(event: HistoryEvent, worker: str) -> EndedLocally | None:
    marker = event.marker_recorded_event_attributes
    if marker.marker_name != "core_local_activity":
        return None
    # Core's own JSON, which no payload codec has encoded.
    about = json.loads(marker.details["data"].payloads[0].data)
    names = split_activity_name(about["activity_type"])
    if names is None:
        return None
    failed = marker.HasField("failure")
    cancelled = failed and marker.failure.HasField("canceled_failure_info")
    return EndedLocally(
        event_id=event.event_id,
        at=_core_time(about["complete_time"]),
        scheduled_at=_core_time(about["original_schedule_time"]),
        provider=names[0],
        operation=names[1],
        attempt=about["attempt"],
        worker=worker,
        summary=event.user_metadata.summary,
        outcome="cancelled" if cancelled else "failed" if failed else "ok",
        result=marker.details["result"].payloads if "result" in marker.details else (),
        failure=marker.failure if failed else None,
    )


def _core_time(value: Mapping[str, int]) -> datetime:
    return _time(Timestamp(seconds=value["seconds"], nanos=value["nanos"]))


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(timezone.utc)
