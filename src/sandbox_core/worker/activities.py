"""Makes Temporal activities of the handlers, with decoding, heartbeats and error encoding."""

from __future__ import annotations

import json
import logging
import tarfile
import zipfile
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from agents.sandbox.errors import ExecTimeoutError, SandboxError, WorkspaceArchiveWriteError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from sandbox_core.errors import PayloadTooLarge, SandboxCoreError
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.failures import encode_error
from sandbox_core.wire.limits import current_limits
from sandbox_core.wire.messages import Message
from sandbox_core.wire.naming import activity_name
from sandbox_core.wire.operations import Operation
from sandbox_core.wire.summaries import summarize
from sandbox_core.wire.terminal_errors import origin_of, reason_of_file
from sandbox_core.worker.attempts import timed
from sandbox_core.worker.authorization import check_access
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.table import HANDLERS
from sandbox_core.worker.heartbeats import heartbeats
from sandbox_core.worker.metrics import ProviderMetrics
from sandbox_core.worker.missing_sudo import missing_sudo
from sandbox_core.worker.observation import Observation, observed
from sandbox_core.worker.path_names import check_paths
from sandbox_core.worker.secrets import Allowed, Secrets, knowing_secrets
from sandbox_core.worker.sessions.lost import reason_of

logger = logging.getLogger(__name__)

Answer: TypeAlias = "JsonObject | bytes | None"
Activity: TypeAlias = Callable[..., Awaitable[Answer]]


def make_activities(
    provider_name: str,
    open_call: Callable[[], Call],
    worker_env: Allowed = frozenset(),
    metrics: Callable[[], ProviderMetrics] = ProviderMetrics,
) -> list[Activity]:
    """Return the activities of one provider, one per row of the table.

    Args:
        provider_name: The first part of every activity type.
        open_call: Returns the handlers' context, or raises the error that makes the provider
            unusable.
        worker_env: The variables of this worker's environment that `WorkerEnv` may read.
        metrics: Returns the metrics that record the operations.
    """
    return [
        _make_activity(provider_name, row, open_call, worker_env, metrics)
        for row in ops.operations()
    ]


def _make_activity(
    provider_name: str,
    operation: Operation[Message, Message | bytes | None],
    open_call: Callable[[], Call],
    worker_env: Allowed,
    metrics: Callable[[], ProviderMetrics],
) -> Activity:
    handler = HANDLERS[operation.name]
    name = activity_name(provider_name, operation.name)

    async def run(request: JsonObject, body: bytes) -> Answer:
        with (
            observed(metrics(), provider_name, operation.name, body) as seen,
            timed(),
            knowing_secrets(worker_env) as secrets,
        ):
            return await attempt(request, body, secrets, seen)

    async def attempt(
        request: JsonObject, body: bytes, secrets: Secrets, seen: Observation
    ) -> Answer:
        try:
            with heartbeats():
                call = seen.call = open_call()
                parsed = seen.request = operation.request.model_validate(request)
                _check_size(operation.name, parsed, len(body), "it was given")
                check_paths(call.provider, parsed)
                await check_access(call, operation.name, parsed)
                answer = secrets.redact(await perform(call, parsed, body))
                encoded = _encode(operation.name, parsed, answer)
                seen.response = answer
                return encoded
        except ApplicationError as error:
            raise _redacted(error, secrets) from None
        except SandboxError as error:
            # The cause is a vendor's error, which is not sent to the workflow.
            what = (operation.name, provider_name)
            level = _level_of(error, operation.name)
            logger.log(level, "%s of provider %s failed", *what, exc_info=error)
            tried = activity.info().attempt
            failure = _with_reason(error)
            raise encode_error(failure, attempt=tried, redact=secrets.redact_output) from None
        except Exception as error:
            # A plugin boundary: the provider's client may raise anything. The cause is only logged
            # here, because it may contain what must not enter a history.
            logger.warning(
                "%s of provider %s failed", operation.name, provider_name, exc_info=error
            )
            raise encode_error(error, redact=secrets.redact_output) from None

    async def perform(call: Call, request: Message, body: bytes) -> Message | bytes | None:
        try:
            return await handler(call, request, body)
        except Exception as error:  # A plugin boundary: any error of the vendor's.
            reason = await reason_of(call, operation, request, error)
            if reason is error:
                reason = await missing_sudo(call, request, error) or error
            if reason is error:
                raise
            raise reason from error

    # Temporal's converters decode by these hints, and all of them take only `Any` to mean arbitrary
    # JSON. The request's own model validates it.
    async def with_bytes(request: dict[str, Any], body: bytes) -> Answer:
        return await run(request, body)

    async def without_bytes(request: dict[str, Any]) -> Answer:
        return await run(request, b"")

    named = activity.defn(name=name)
    return named(with_bytes) if operation.takes_bytes else named(without_bytes)


def _encode(name: str, request: Message, answer: Message | bytes | None) -> Answer:
    encoded = answer.dump() if isinstance(answer, Message) else answer
    size = len(encoded) if isinstance(encoded, bytes) else len(json.dumps(encoded))
    _check_size(name, request, size, "the answer has")
    return encoded


def _check_size(name: str, request: Message, size: int, what: str) -> None:
    limits = current_limits()
    if size > limits.payload:
        raise PayloadTooLarge(
            f"{name} {summarize(request.summary())}: {what} {size:,} bytes, more than the "
            f"{limits.payload:,} {limits.reason}."
        )


def _redacted(error: ApplicationError, secrets: Secrets) -> ApplicationError:
    if not secrets.values:
        return error
    return ApplicationError(
        secrets.redact_output(error.message),
        *secrets.redact(list(error.details)),
        type=error.type,
        non_retryable=error.non_retryable,
        category=error.category,
        next_retry_delay=error.next_retry_delay,
    )


_OPENING = {row.name for row in (ops.CREATE_SESSION, ops.RESUME_SESSION, ops.START)}
"""Operations without a command or file of the workflow's that could be wrong."""


def _level_of(error: SandboxError, operation: str) -> int:
    """Return the log level: a warning if the error concerns the worker's operator, else debug."""
    if operation in _OPENING:
        return logging.WARNING
    comes_from_elsewhere = origin_of(error) is not error and reason_of_file(error) is None
    timed_out = isinstance(error, ExecTimeoutError)
    return logging.WARNING if comes_from_elsewhere and not timed_out else logging.DEBUG


def _with_reason(error: SandboxError) -> SandboxError:
    # The SDK's message is just "failed to stop session" or "failed to read archive". Unlike a
    # vendor's, these causes are texts of ours and of the operating system, without secrets.
    cause: BaseException | None = error
    while isinstance(cause, SandboxError):
        cause = cause.cause
    if isinstance(cause, SandboxCoreError):
        error.message = f"{error.message}: {cause.message}"
        error.retryable = not cause.non_retryable
    elif isinstance(error, WorkspaceArchiveWriteError) and isinstance(
        cause, tarfile.TarError | zipfile.BadZipFile
    ):
        error.message = f"{error.message}: not a valid archive"
        error.retryable = False
    elif not isinstance(cause, FileNotFoundError):
        reason = reason_of_file(error)
        if reason is not None:
            error.message = f"{error.message}: {reason}"
    return error
