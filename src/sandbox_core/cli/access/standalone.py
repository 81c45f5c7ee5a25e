"""Runs one operation as a standalone activity."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from datetime import timedelta
from typing import cast

from temporalio import exceptions
from temporalio.client import ActivityFailureError, ActivityHandle, Client
from temporalio.exceptions import CancelledError, TimeoutType
from temporalio.service import RPCError, RPCStatusCode
from temporalio.workflow import ActivityConfig

from sandbox_core.cli.connection import ServerUnavailable, server_errors
from sandbox_core.errors import OperationFailed
from sandbox_core.wire.checks import check_request
from sandbox_core.wire.messages import Message
from sandbox_core.wire.naming import activity_name, host_of
from sandbox_core.wire.operations import Operation, RequestT, ResponseT
from sandbox_core.workflow.dispatch import activity_options, error_from

_TAKEN_WITHIN = timedelta(seconds=10)
"""How long an idle worker may take to start an operation."""

_HEARTBEAT_TIMEOUT = timedelta(seconds=10)
"""A worker learns of a cancellation from the response to a heartbeat, of which it sends three."""

_ENDED_WITHIN_S = 15.0
"""How long a worker may take to end a cancelled command."""


class Unanswered(OperationFailed):
    """No worker took the operation from the queue in time.

    Args:
        message: Which queue that is.
        began: Whether a worker had taken an earlier attempt, and may have carried it out.
    """

    def __init__(self, message: str, *, began: bool) -> None:
        super().__init__(message)
        self.began = began


async def perform(
    client: Client,
    provider: str,
    operation: Operation[RequestT, ResponseT],
    request: RequestT,
    body: bytes | None = None,
    *,
    queue: str,
) -> ResponseT:
    """Run `operation` on the worker whose own queue is `queue`, and return its response.

    If cancelled, the activity is cancelled too, and has ended before this raises.

    Raises:
        Unanswered: The worker is gone, or has no free slot.
        SandboxError: Raised in the activity; keeps its class.
        SandboxCoreError: See `sandbox_core.errors`.
        ServerUnavailable: The server does not answer, refuses, or has no standalone activities.
    """
    check_request(operation.name, request)
    with server_errors(client):
        handle = await _started(client, provider, operation, request, body, queue)
        try:
            result = await handle.result()
        except asyncio.CancelledError:
            await _cancelled(handle)
            raise
        except ActivityFailureError as error:
            cause = error.cause
            if _is_unanswered(cause):
                raise Unanswered(
                    f"no worker took {operation.name} from its queue {queue!r} within "
                    f"{_TAKEN_WITHIN.seconds} s: the worker on host {host_of(queue)} is gone, or "
                    f"all of its slots are in use.",
                    began=(await handle.describe()).attempt > 1,
                ) from error
            restored = error_from(cause, provider, operation, request, task_queue=queue)
            if restored is None:
                did = "was cancelled" if isinstance(cause, CancelledError) else f"failed: {cause}"
                raise OperationFailed(f"{operation.name} on {queue!r} {did}") from error
            raise restored from error
    if issubclass(operation.response, Message):
        return cast("ResponseT", operation.response.model_validate(result))
    return cast("ResponseT", result)


async def _started(
    client: Client,
    provider: str,
    operation: Operation[RequestT, ResponseT],
    request: RequestT,
    body: bytes | None,
    queue: str,
) -> ActivityHandle[object]:
    config = ActivityConfig(
        heartbeat_timeout=_HEARTBEAT_TIMEOUT, start_to_close_timeout=timedelta(minutes=5)
    )
    options = activity_options(config, operation, request)
    data = request.dump()
    try:
        return await client.start_activity(
            activity_name(provider, operation.name),
            args=[data] if body is None else [data, body],
            id=f"sandbox-core-{operation.name}-{uuid.uuid4().hex}",
            task_queue=queue,
            result_type=bytes if issubclass(operation.response, bytes) else dict,
            schedule_to_start_timeout=_TAKEN_WITHIN,
            start_to_close_timeout=options.get("start_to_close_timeout"),
            heartbeat_timeout=options.get("heartbeat_timeout"),
            retry_policy=options.get("retry_policy"),
            summary=options.get("summary"),
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.UNIMPLEMENTED:
            raise
        raise ServerUnavailable(
            f"Temporal at {client.service_client.config.target_host} does not run standalone "
            f"activities, which this needs: {error.message.rstrip('.')}. Upgrade the server, or "
            f"set activity.enableStandalone in its dynamic configuration."
        ) from error


async def _cancelled(handle: ActivityHandle[object]) -> None:
    """Cancel an activity, and wait for its end."""
    await handle.cancel(reason="interrupted")
    with suppress(ActivityFailureError, asyncio.TimeoutError):
        await asyncio.wait_for(handle.result(), _ENDED_WITHIN_S)


def _is_unanswered(cause: BaseException | None) -> bool:
    return (
        isinstance(cause, exceptions.TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START
    )
