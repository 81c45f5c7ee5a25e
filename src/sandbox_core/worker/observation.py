"""Measures each attempt at an operation: the one place where metrics and spans are recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from temporalio import activity
from temporalio.exceptions import ApplicationError

from sandbox_core.wire.messages import DeleteSessionRequest, Message, ReapResponse
from sandbox_core.worker.call import Call
from sandbox_core.worker.metrics import ProviderMetrics

OK, CANCELLED = "ok", "cancelled"
"""Outcomes; the other ones are the types of errors, as in histories."""


@dataclass(kw_only=True)
class Observation:
    """What is known about an attempt so far."""

    body: bytes
    call: Call | None = None
    request: Message | None = None
    response: Message | bytes | None = None

    @property
    def bytes_in(self) -> int:
        """The size of what was sent to the sandbox."""
        return len(self.body) + (0 if self.request is None else self.request.content_bytes())

    @property
    def bytes_out(self) -> int:
        """The size of what was received from the sandbox."""
        answer = self.response
        return answer.content_bytes() if isinstance(answer, Message) else len(answer or b"")


@contextmanager
def observed(metrics: ProviderMetrics, operation: str, body: bytes) -> Iterator[Observation]:
    """Record what happens within this context as one attempt at an operation.

    Args:
        metrics: Records the attempt.
        operation: The operation's name.
        body: The raw data of the request.
    """
    of_operation, info = metrics.operation(operation), activity.info()
    waited = info.started_time - info.current_attempt_scheduled_time
    of_operation.began(attempt=info.attempt, waited=waited)
    seen, begun, outcome = Observation(body=body), time.perf_counter(), OK
    try:
        yield seen
    except asyncio.CancelledError:
        outcome = CANCELLED
        raise
    except BaseException as error:
        outcome = outcome_of(error)
        raise
    finally:
        of_operation.ended(
            outcome=outcome,
            seconds=time.perf_counter() - begun,
            bytes_in=seen.bytes_in,
            bytes_out=seen.bytes_out,
        )
    _count_sandboxes(metrics, seen)


def outcome_of(error: BaseException) -> str:
    """Return the type of an error, as in histories: the code of one of the Agents SDK's."""
    kind = error.type if isinstance(error, ApplicationError) else None
    return kind or type(error).__name__


def _count_sandboxes(metrics: ProviderMetrics, seen: Observation) -> None:
    request, response = seen.request, seen.response
    if isinstance(request, DeleteSessionRequest) and request.since is not None:
        metrics.deleted(time.time() - request.since, "workflow")
    if isinstance(response, ReapResponse):
        for sandbox in response.sandboxes:
            metrics.reaped(sandbox.outcome)
            if sandbox.outcome == "deleted" and sandbox.age_s is not None:
                metrics.deleted(sandbox.age_s, "reaper")
