"""Resumes a session on a worker, and limits how long to wait for a busy one."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from temporalio import exceptions, workflow
from temporalio.exceptions import ActivityError, TimeoutType
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import WorkerBusy
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import apply_delta, load_state
from sandbox_core.workflow.dispatch import dispatch

Resumed: TypeAlias = "tuple[m.OpenSessionResponse, SandboxSessionState]"
"""The worker's response, and the session's new state."""

DEFAULT_BUSY_TIMEOUT = timedelta(hours=1)
"""How long an operation waits for a busy worker, without a schedule-to-close timeout."""


class Patience:
    """How long an operation may wait for a busy worker, counted from now."""

    def __init__(self, config: ActivityConfig) -> None:
        self._limit = config.get("schedule_to_close_timeout") or DEFAULT_BUSY_TIMEOUT
        self._deadline = workflow.now() + self._limit

    def check(self, queue: str, error: ActivityError) -> None:
        """Check that there is time left.

        Raises:
            WorkerBusy: The time is up.
        """
        if workflow.now() < self._deadline:
            return
        raise WorkerBusy(
            f"the worker of task queue {queue!r} is alive, but had no free slot for "
            f"{error.activity_type} within {self._limit}. Raise its max_concurrent_activities, "
            f"add workers, or allow more with the schedule_to_close_timeout of the config."
        ) from error


def unanswered(error: ActivityError) -> bool:
    """Return whether the activity never started: no worker polled it in time."""
    cause = error.cause
    return (
        isinstance(cause, exceptions.TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START
    )


def next_epoch(previous: int = 0) -> int:
    """Return an epoch later than `previous` and those of other workflows that use the session."""
    return max(previous + 1, int(workflow.now().timestamp() * 1000))


async def resume_session(
    provider: str, config: ActivityConfig, request: m.ResumeSessionRequest
) -> Resumed:
    """Open the session of ``request.state`` on a worker; return it with its new state."""
    opened = await dispatch(provider, config, ops.RESUME_SESSION, request)
    return opened, load_state(apply_delta(request.state, opened.state_delta))
