"""How a workflow creates a sandbox: it waits for room, and deletes what it was not told of."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import TypeAlias

from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from temporalio import workflow
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import AtCapacity, OperationFailed, PayloadTooLarge, StorageError
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import JsonObject, apply_delta, load_state
from sandbox_core.workflow.dispatch import dispatch

Created: TypeAlias = "tuple[m.OpenSessionResponse, SandboxSessionState]"

DEFAULT_CAPACITY_TIMEOUT = timedelta(hours=1)
"""How long a create waits for room, unless the config has a schedule-to-close timeout."""

# Without this patch in its history, a workflow leaves what a create has made whose answer it could
# not read.
_UNREAD = "sandbox-core-unread-create"

_FIRST_WAIT = timedelta(seconds=1)
_LONGEST_WAIT = timedelta(seconds=30)
_CLEANING_UP = timedelta(minutes=2)


async def create_session(
    provider: str, config: ActivityConfig, request: m.CreateSessionRequest
) -> Created:
    """Create a sandbox; while the workers have as many as they may, wait and ask again.

    Returns:
        What the worker answered, and the state of the session.

    Raises:
        AtCapacity: There was no room for as long as the workflow may wait.
        OperationFailed: What the worker answered cannot be read here.
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
) -> Created | AtCapacity:
    try:
        return await _create(provider, config, request)
    except AtCapacity as full:
        return full


async def _create(
    provider: str, config: ActivityConfig, request: m.CreateSessionRequest
) -> Created:
    try:
        opened = await dispatch(provider, config, ops.CREATE_SESSION, request)
        base: JsonObject = {} if request.manifest is None else {"manifest": request.manifest}
        return opened, load_state(apply_delta(base, opened.state_delta))
    except (asyncio.CancelledError, Exception) as error:
        if _may_leave_one(error):
            abandoned = m.DeleteSessionRequest(
                session=m.SessionRef(session_id="", epoch=request.epoch),
                create_key=request.create_key,
            )
            await clean_up(delete_session(provider, cleaning_up(config), abandoned))
        if isinstance(error, ValueError):
            raise OperationFailed(
                f"{provider} create_session: the answer cannot be read where the workflow runs; "
                f"its workers need the same versions of sandbox-core and of the provider as the "
                f"others. The sandbox was deleted. ({error})"
            ) from error
        raise


def _may_leave_one(error: BaseException) -> bool:
    """Tell whether there may be a sandbox although its create has ended with `error`."""
    if isinstance(error, asyncio.CancelledError | ActivityError):
        # It was cancelled or timed out. A worker that lives deletes what it has made; this is for
        # one that does not, and for an answer that came too late.
        return True
    # The worker has deleted what it made, unless it did not know that its answer was refused. What
    # no worker has said was refused before one was asked, or says that the answer cannot be read.
    refused = isinstance(error, PayloadTooLarge | StorageError)
    of_worker = isinstance(error.__cause__, ActivityError)
    return refused == of_worker and workflow.patched(_UNREAD)


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
            "a sandbox could not be deleted; `sandbox-core reap` finds it once its workflow ends: "
            "%s",
            error,
        )
