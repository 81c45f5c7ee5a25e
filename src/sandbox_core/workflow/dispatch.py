"""Runs one operation as one activity: its options, payload and errors."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar, cast

from temporalio import exceptions, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from sandbox_core.errors import (
    InvalidRequest,
    OutcomeUnknown,
    PayloadTooLarge,
    SandboxCoreError,
    StorageError,
    UnknownProvider,
)
from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.checks import check_request
from sandbox_core.wire.failures import decode_error
from sandbox_core.wire.limits import current_limits
from sandbox_core.wire.messages import ExecRequest, ExecResponse, KeyedRequest, Message
from sandbox_core.wire.naming import (
    NOT_REGISTERED,
    activity_name,
    is_not_registered,
    offered_providers,
)
from sandbox_core.wire.operations import Effect, Operation, RequestT, ResponseT
from sandbox_core.wire.published import how_to_install
from sandbox_core.wire.sandbox_workflows import note_use_of_sandbox
from sandbox_core.wire.summaries import summarize
from sandbox_core.workflow.convert import refuse
from sandbox_core.workflow.local_activities import (
    may_be_repeated,
    note_activity,
    start_local_activity,
)

_ResultT = TypeVar("_ResultT")

DEFAULT_START_TO_CLOSE_TIMEOUT = timedelta(minutes=5)
DEFAULT_HEARTBEAT_TIMEOUT = timedelta(seconds=30)

_MAX_ATTEMPTS = 5
_RETRY_POLICY = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=_MAX_ATTEMPTS,
)
# Added to the duration that a request asks for: starting, transferring and reporting take time.
_OVERHEAD = timedelta(seconds=60)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_BYTE_OF_NAME = re.compile("[\udc80-\udcff]")
_LONGEST_S = timedelta(days=3650).total_seconds()


async def dispatch(
    provider: str,
    config: ActivityConfig,
    operation: Operation[RequestT, ResponseT],
    request: RequestT,
    body: bytes | None = None,
) -> ResponseT:
    """Run `operation` at `provider` as an activity and return its response.

    A request with `within_s` is a local activity. It is attempted once; if another attempt may
    follow, the response is `unfinished`.

    Args:
        provider: The provider's name, which is part of the activity type.
        config: The user's activity options. They override the operation's defaults, except that a
            non-repeatable operation is never retried and no retry is unbounded.
        operation: A row of the table.
        request: The request.
        body: The raw data, if the operation takes any.

    Raises:
        SandboxError: Raised in the activity; keeps its class.
        InvalidRequest: The request is invalid on any worker; nothing was scheduled.
        SandboxCoreError: See `sandbox_core.errors`.
        temporalio.exceptions.ActivityError: The activity was cancelled or timed out.
    """
    if workflow.in_workflow():
        note_use_of_sandbox()
    try:
        check_request(operation.name, request)
    except InvalidRequest as error:
        refuse(error)
    data = request.dump()
    text = json.dumps(data)
    _check_text(operation.name, data, text)
    _check_size(operation.name, request, max(len(text), len(body or b"")))
    name = activity_name(provider, operation.name)
    answers_bytes = issubclass(operation.response, bytes)
    is_local = isinstance(request, ExecRequest) and request.within_s is not None
    handle: workflow.ActivityHandle[object] | None
    try:
        options = activity_options(config, operation, request)
        if is_local:
            handle = start_local_activity(name, data, options)
            if handle is None:
                return cast("ResponseT", ExecResponse(unfinished="started"))
        else:
            note_activity()
            handle = workflow.start_activity(
                name,
                args=[data] if body is None else [data, body],
                result_type=bytes if answers_bytes else dict,
                **options,
            )
        result = await _to_its_end(handle, options)
    except FailureError as error:
        # That of a local activity is the failure itself.
        cause = error.cause if isinstance(error, ActivityError) else error
        if is_local and may_be_repeated(cause, options):
            return cast("ResponseT", ExecResponse(unfinished="started"))
        queue = workflow.info().task_queue
        restored = error_from(cause, provider, operation, request, task_queue=queue)
        if restored is None:
            raise
        raise restored from error
    if issubclass(operation.response, Message):
        return cast("ResponseT", operation.response.model_validate(result))
    return cast("ResponseT", result if answers_bytes else None)


async def _to_its_end(
    handle: workflow.ActivityHandle[_ResultT], options: ActivityConfig
) -> _ResultT:
    """Await an activity; a cancellation that waits for its end is raised whatever it returns."""
    waits = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
    if options.get("cancellation_type") is not waits:
        return await handle
    try:
        return await asyncio.shield(handle)
    except asyncio.CancelledError as cancelled:
        handle.cancel()
        while not handle.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([handle])
        error = handle.exception()
        # Cancelled, whatever the outcome. Temporal's own cancellation error carries the cause.
        told = error is not None and is_cancelled_exception(error)
        outcome: BaseException = error if error is not None and told else cancelled
    raise outcome


def activity_options(
    config: ActivityConfig, operation: Operation[RequestT, ResponseT], request: RequestT
) -> ActivityConfig:
    """Return an operation's default activity options, overridden by the user's."""
    options = ActivityConfig(
        heartbeat_timeout=DEFAULT_HEARTBEAT_TIMEOUT,
        summary=summarize(f"{operation.name}: {request.summary()}".removesuffix(": ")),
    )
    options.update(config)
    if not (options.get("start_to_close_timeout") or options.get("schedule_to_close_timeout")):
        options["start_to_close_timeout"] = DEFAULT_START_TO_CLOSE_TIMEOUT
    asked = operation.duration(request)
    if asked is not None:
        needed = timedelta(seconds=min(asked, _LONGEST_S)) + _OVERHEAD
        options["start_to_close_timeout"] = _at_least(options.get("start_to_close_timeout"), needed)
        options["schedule_to_close_timeout"] = _at_least(
            options.get("schedule_to_close_timeout"), needed
        )
    options["retry_policy"] = _retry_policy(options, operation.effect)
    return options


def _at_least(timeout: timedelta | None, needed: timedelta) -> timedelta | None:
    return None if timeout is None else max(timeout, needed)


def _retry_policy(options: ActivityConfig, effect: Effect) -> RetryPolicy:
    policy = options.get("retry_policy") or _RETRY_POLICY
    attempts = policy.maximum_attempts
    if effect is Effect.ONCE:
        attempts = 1
    elif attempts == 0 and options.get("schedule_to_close_timeout") is None:
        attempts = _MAX_ATTEMPTS
    never = policy.non_retryable_error_types or ()
    return replace(
        policy, maximum_attempts=attempts, non_retryable_error_types=[*never, NOT_REGISTERED]
    )


def _check_text(name: str, data: JsonObject, text: str) -> None:
    """Return if the request, serialized as `text`, can be sent.

    Raises:
        InvalidRequest: It contains a lone surrogate, which is not valid text. Some data converters
            accept those that stand for a byte of a file name.
    """
    lone = _LONE_SURROGATE.search(json.dumps(data, ensure_ascii=False)) if "\\ud" in text else None
    if lone is None:
        return
    if workflow.in_workflow() and _BYTE_OF_NAME.fullmatch(lone[0]):
        with suppress(Exception):  # A data converter may raise anything.
            workflow.payload_converter().to_payloads([data])
            return
    raise InvalidRequest(
        f"{name}: the request contains {lone[0]!r}, a lone surrogate, which is not valid text and "
        f"cannot be sent."
    )


def _check_size(name: str, request: Message, size: int) -> None:
    limits = current_limits()
    number = None if limits.requests is None else next(limits.requests)
    about = f"{name} {summarize(request.summary())}"
    if _decided("too-large", number, now=size > limits.payload):
        raise PayloadTooLarge(
            f"{about}: {size:,} bytes are more than the {limits.payload:,} {limits.reason}."
        )
    needs_store = limits.stored is not None and size >= limits.stored
    problem = limits.outage() if needs_store else None
    if _decided("no-storage", number, now=problem is not None):
        raise StorageError(f"{about}: {problem or 'the storage could not be used'}")


def _decided(what: str, number: int | None, *, now: bool) -> bool:
    """Return whether a request is refused; on replay, as it was decided first.

    A worker's limits and the state of its store are not in the history, so each refusal is recorded
    as a patch for this one request.
    """
    if number is None or not workflow.in_workflow():
        return now
    if now or workflow.unsafe.is_replaying():
        return workflow.patched(f"sandbox-core-{what}-{number}")
    return False


def error_from(
    cause: BaseException | None,
    provider: str,
    operation: Operation[RequestT, ResponseT],
    request: RequestT,
    *,
    task_queue: str,
) -> Exception | None:
    """Return the error that a failed activity stands for; None if it stands for itself.

    Args:
        cause: The cause of Temporal's own error.
        provider: The provider's name.
        operation: The operation that failed.
        request: Its request.
        task_queue: The queue that it was sent to, named in errors.
    """
    if isinstance(cause, ApplicationError):
        if is_not_registered(cause):
            return _unknown_provider(provider, operation.name, cause, task_queue)
        # If its input cannot be loaded, an activity fails with "Failed decoding arguments".
        inner = cause.cause
        if isinstance(inner, ApplicationError) and inner.type == StorageError.__name__:
            return decode_error(inner)
        return decode_error(cause)
    if (
        (operation.effect is Effect.ONCE or isinstance(request, KeyedRequest))
        and isinstance(cause, exceptions.TimeoutError)
        and cause.type in (TimeoutType.HEARTBEAT, TimeoutType.START_TO_CLOSE)
    ):
        return OutcomeUnknown(
            f"{provider} {operation.name}: {summarize(request.summary())!r} may or may not have "
            f"run: its worker stopped answering ({cause.type.name.lower()} timeout). It was not "
            f"repeated; check the workspace before running it again."
        )
    return None


def _unknown_provider(
    provider: str, operation: str, cause: ApplicationError, task_queue: str
) -> SandboxCoreError:
    _, _, registered = cause.message.partition("available activities: ")
    offered = offered_providers(registered)
    if provider in offered:
        return UnknownProvider(
            f"the worker on task queue {task_queue!r} that polled {operation!r} of provider "
            f"{provider!r} does not know this operation: its sandbox-core is older. "
            f"Upgrade it."
        )
    offers = f"it offers {', '.join(offered) or 'none'}"
    return UnknownProvider(
        f"no provider {provider!r} on task queue {task_queue!r}: {offers}. Check the name, or "
        f"install the provider where the worker runs ({how_to_install(provider)}), make sure that "
        f"SandboxPlugin() is among the worker's plugins, and restart it."
    )
