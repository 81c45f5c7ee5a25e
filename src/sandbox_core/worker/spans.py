"""The OpenTelemetry span of an attempt; without OpenTelemetry in the process, none.

Temporal's interceptors and plugin for OpenTelemetry carry the trace from the workflow to the
activity. This needs neither: it looks for a span only where something has imported OpenTelemetry.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_OTEL = "opentelemetry.trace"
_TRACER = "sandbox_core"


@contextmanager
def span_of(activity_type: str) -> Iterator[Span | None]:
    """Yield the span that describes the current attempt, or None if it is not traced.

    It is the one that Temporal has made of the activity or, as its plugin makes none by default,
    one of ours within the workflow's trace.
    """
    if _OTEL not in sys.modules:
        yield None
        return
    from opentelemetry import trace

    current = trace.get_current_span()
    if not current.get_span_context().is_valid:
        yield None
    elif getattr(current, "name", None) == f"RunActivity:{activity_type}":
        yield current if current.is_recording() else None
    else:
        # The failure's message is the workflow's, and may contain what the sandbox has written.
        with trace.get_tracer(_TRACER).start_as_current_span(
            activity_type,
            kind=trace.SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as own:
            yield own if own.is_recording() else None


def fail(span: Span, outcome: str) -> None:
    """Mark the span of a failed attempt, unless Temporal has made it and marks it itself."""
    if getattr(span, "name", "").startswith("RunActivity:"):
        return
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, outcome))
