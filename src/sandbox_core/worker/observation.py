"""Measures each attempt at an operation: the one place where metrics and spans are recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from sandbox_core.wire.messages import (
    DeleteSessionRequest,
    ExecResponse,
    Message,
    OpenSessionResponse,
    PtyResponse,
    ReapResponse,
    SessionRef,
    SessionRequest,
)
from sandbox_core.worker.call import Call
from sandbox_core.worker.metrics import ProviderMetrics
from sandbox_core.worker.sessions.resume import sandbox_identity
from sandbox_core.worker.spans import fail, span_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span

OK, CANCELLED, UNFINISHED = "ok", "cancelled", "unfinished"
"""Outcomes; the other ones are the types of errors, as in histories."""


@dataclass(kw_only=True)
class Observation:
    """What is known about an attempt so far."""

    provider: str
    operation: str
    body: bytes
    info: activity.Info
    outcome: str = OK
    call: Call | None = None
    request: Message | None = None
    response: Message | bytes | None = None

    @property
    def waited_s(self) -> float:
        """How many seconds the attempt waited for a worker."""
        waited = self.info.started_time - self.info.current_attempt_scheduled_time
        return max(waited.total_seconds(), 0.0)

    @property
    def bytes_in(self) -> int:
        """The size of what was sent to the sandbox."""
        return len(self.body) + (0 if self.request is None else self.request.content_bytes())

    @property
    def bytes_out(self) -> int:
        """The size of what was received from the sandbox."""
        answer = self.response
        return answer.content_bytes() if isinstance(answer, Message) else len(answer or b"")

    @property
    def session(self) -> SessionRef | None:
        """The session that the attempt opened or used."""
        for message in (self.response, self.request):
            if isinstance(message, OpenSessionResponse | SessionRequest):
                return message.session
        return None

    @property
    def sandbox_id(self) -> str | None:
        """The backend's id of the sandbox, if this worker has its session."""
        session, call = self.session, self.call
        held = None if session is None or call is None else call.pool.find(session.session_id)
        if held is None or call is None:
            return None
        try:
            return sandbox_identity(call.provider, held.session.state)
        except Exception:  # noqa: BLE001 - a plugin's, and it must not change the outcome
            return None

    @property
    def is_unfinished(self) -> bool:
        """Whether it was a local activity that leaves its command to another activity."""
        return isinstance(self.response, ExecResponse) and self.response.unfinished is not None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a command that has ended."""
        answer = self.response
        if self.is_unfinished:
            return None
        return answer.exit_code if isinstance(answer, ExecResponse | PtyResponse) else None


@contextmanager
def observed(
    metrics: ProviderMetrics, provider: str, operation: str, body: bytes
) -> Iterator[Observation]:
    """Record what happens within this context as one attempt at an operation.

    Args:
        metrics: Records the attempt.
        provider: The provider's name.
        operation: The operation's name.
        body: The raw data of the request.
    """
    info = activity.info()
    seen = Observation(provider=provider, operation=operation, body=body, info=info)
    of_operation = metrics.operation(operation)
    of_operation.began(attempt=info.attempt, waited_s=seen.waited_s)
    begun = time.perf_counter()
    with span_of(info.activity_type) as span:
        try:
            yield seen
            if seen.is_unfinished:
                seen.outcome = UNFINISHED
        except BaseException as error:
            seen.outcome = outcome_of(error)
            if span is not None and not _is_answer(error):
                fail(span, seen.outcome)
            raise
        finally:
            of_operation.ended(
                outcome=seen.outcome,
                seconds=time.perf_counter() - begun,
                bytes_in=seen.bytes_in,
                bytes_out=seen.bytes_out,
            )
            if span is not None:
                _describe(span, seen)
    _count_sandboxes(metrics, seen)


def outcome_of(error: BaseException) -> str:
    """Return the type of an error, as in histories: the code of one of the Agents SDK's."""
    if isinstance(error, asyncio.CancelledError):
        return CANCELLED
    kind = error.type if isinstance(error, ApplicationError) else None
    return kind or type(error).__name__


def _is_answer(error: BaseException) -> bool:
    """Return whether an error is the answer to the caller, such as "file not found"."""
    return isinstance(error, ApplicationError) and error.category is ApplicationErrorCategory.BENIGN


def _describe(span: Span, seen: Observation) -> None:
    # Neither commands nor paths, which may contain anything.
    session = seen.session
    known: dict[str, str | int | float | None] = {
        "sandbox.provider": seen.provider,
        "sandbox.operation": seen.operation,
        "sandbox.session.id": None if session is None else session.session_id,
        "sandbox.id": seen.sandbox_id,
        "sandbox.attempt": seen.info.attempt,
        "sandbox.outcome": seen.outcome,
        "sandbox.queue_wait": seen.waited_s,
        "sandbox.bytes_in": seen.bytes_in,
        "sandbox.bytes_out": seen.bytes_out,
        "process.exit.code": seen.exit_code,
    }
    span.set_attributes({name: value for name, value in known.items() if value is not None})


def _count_sandboxes(metrics: ProviderMetrics, seen: Observation) -> None:
    request, response = seen.request, seen.response
    if isinstance(request, DeleteSessionRequest) and request.since is not None:
        metrics.deleted(time.time() - request.since, "workflow")
    if isinstance(response, ReapResponse):
        for sandbox in response.sandboxes:
            metrics.reaped(sandbox.outcome)
            if sandbox.outcome == "deleted" and sandbox.age_s is not None:
                metrics.deleted(sandbox.age_s, "reaper")
