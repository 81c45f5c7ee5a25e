"""How a workflow creates a sandbox: it waits for room, and deletes what it was not told of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import AtCapacity
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.workflow.dispatch import dispatch

DEFAULT_CAPACITY_TIMEOUT = timedelta(hours=1)
"""How long a create waits for room, unless the config has a schedule-to-close timeout."""

_FIRST_WAIT = timedelta(seconds=1)
_LONGEST_WAIT = timedelta(seconds=30)
_CLEANING_UP = timedelta(minutes=2)


async def create_session(
    provider: str, config: ActivityConfig, request: m.CreateSessionRequest
) -> m.OpenSessionResponse:
    """Create a sandbox; while the workers have as many as they may, wait and ask again.

    Raises:
        AtCapacity: There was no room for as long as the workflow may wait.
    """
    patience = config.get("schedule_to_close_timeout") or DEFAULT_CAPACITY_TIMEOUT
    deadline, wait = workflow.now() + patience, _FIRST_WAIT
    while isinstance(answer := await _create_if_room(provider, config, request), AtCapacity):
        left = deadline - workflow.now()
        if left <= timedelta():
            raise AtCapacity(
                f"{answer.message}, and none was deleted within {patience}. Delete sessions that "
                f"are not used any more, add workers, or raise SandboxPlugin(max_sandboxes=...)."
            ) from answer
        # The Temporal UI shows the summary beside the timer.
        await workflow.sleep(min(wait, left), summary=f"waiting for room: {answer.message}")
        wait = min(wait * 2, _LONGEST_WAIT)
    return answer


async def _create_if_room(
    provider: str, config: ActivityConfig, request: m.CreateSessionRequest
) -> m.OpenSessionResponse | AtCapacity:
    try:
        return await _create(provider, config, request)
    except AtCapacity as full:
        return full


async def _create(
    provider: str, config: ActivityConfig, request: m.CreateSessionRequest
) -> m.OpenSessionResponse:
    try:
        return await dispatch(provider, config, ops.CREATE_SESSION, request)
    except (asyncio.CancelledError, ActivityError):
        # It was cancelled or timed out. A worker that lives deletes what it has made; this is for
        # one that does not, and for an answer that came too late.
        abandoned = m.DeleteSessionRequest(
            session=m.SessionRef(session_id="", epoch=request.epoch), create_key=request.create_key
        )
        await clean_up(delete_session(provider, cleaning_up(config), abandoned))
        raise


async def delete_session(
    provider: str, config: ActivityConfig, request: m.DeleteSessionRequest
) -> m.StateResponse:
    """Delete a sandbox.

    Raises:
        SessionNotOpen: The worker does not hold the session, and `request` has not its state.
    """
    return await dispatch(provider, config, ops.DELETE_SESSION, request)


def cleaning_up(config: ActivityConfig) -> ActivityConfig:
    """Return the options for deleting what a failure or a cancellation has left."""
    bounded = config.copy()
    bounded["schedule_to_close_timeout"] = _CLEANING_UP
    return bounded


async def clean_up(work: Coroutine[object, object, object]) -> None:
    """Run `work` although the workflow is being cancelled; its failure never hides the first."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
    except Exception as error:  # noqa: BLE001 - whatever it is, the first error counts
        workflow.logger.warning(
            "a sandbox could not be deleted; `sandbox reap` finds it when the workflow is closed: "
            "%s",
            error,
        )
