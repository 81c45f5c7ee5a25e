"""Creates sandboxes for a workflow: waits for capacity, cleans up after failures."""

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
"""How long a create waits for capacity, without a schedule-to-close timeout in the config."""

# Without this patch, a workflow leaks the sandbox of a create whose answer it cannot read.
_UNREAD = "sandbox-core-unread-create"

_FIRST_WAIT = timedelta(seconds=1)
_LONGEST_WAIT = timedelta(seconds=30)
_CLEANING_UP = timedelta(minutes=2)


async def create_session(
    provider: str, config: ActivityConfig, request: m.CreateSessionRequest
) -> Created:
    """Create a sandbox, waiting while the workers are at capacity.

    Returns:
        The worker's response and the session state.

    Raises:
        AtCapacity: The workers stayed at capacity for as long as the workflow may wait.
        OperationFailed: The response cannot be decoded here.
    """
    patience = config.get("schedule_to_close_timeout") or DEFAULT_CAPACITY_TIMEOUT
    deadline, wait = workflow.now() + patience, _FIRST_WAIT
    while True:
        try:
            return await _create(provider, config, request)
        except AtCapacity as full:
            left = deadline - workflow.now()
            if left <= timedelta():
                raise AtCapacity(
                    f"{full.message}, and none was deleted within {patience}. Delete unused "
                    f"sessions, add workers, or raise SandboxPlugin(max_sandboxes=...)."
                ) from full
            pause = min(max(wait, full.next_retry_delay or timedelta()), left)
            reason = full.message
        # The Temporal UI shows the summary beside the timer.
        await workflow.sleep(
            pause,
            summary=f"waiting for room: {reason}",
            event_groups=config.get("event_groups"),
        )
        wait = min(wait * 2, _LONGEST_WAIT)


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
                f"{provider} create_session: the response cannot be decoded where the workflow "
                f"runs: all workers need the same versions of sandbox-core and of the provider. "
                f"The sandbox was deleted. ({error})"
            ) from error
        raise


def _may_leave_one(error: BaseException) -> bool:
    """Return whether a create that raised `error` may have left a sandbox."""
    if isinstance(error, asyncio.CancelledError | ActivityError):
        # Cancelled or timed out. A live worker deletes its sandbox itself; a dead one cannot, and
        # the response may have come too late.
        return True
    # A worker deletes its sandbox unless it did not learn that its response was refused. An error
    # that is not the worker's means that none was asked, or that the response cannot be decoded.
    refused = isinstance(error, PayloadTooLarge | StorageError)
    of_worker = isinstance(error.__cause__, ActivityError)
    return refused == of_worker and workflow.patched(_UNREAD)


async def delete_session(
    provider: str, config: ActivityConfig, request: m.DeleteSessionRequest
) -> m.StateResponse:
    """Delete a sandbox.

    Raises:
        SessionNotOpen: The worker does not hold the session, and `request` has no state.
    """
    return await dispatch(provider, config, ops.DELETE_SESSION, request)


def cleaning_up(config: ActivityConfig) -> ActivityConfig:
    """Return the activity options for cleaning up after a failure or cancellation."""
    bounded = config.copy()
    bounded["schedule_to_close_timeout"] = _CLEANING_UP
    return bounded


async def clean_up(work: Coroutine[object, object, object]) -> None:
    """Run `work` even during cancellation; log its failure rather than hide the original error."""
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
