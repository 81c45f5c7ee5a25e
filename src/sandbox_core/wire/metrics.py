"""THE table of metrics: every metric is made from a row, and documented by it.

Names follow OpenTelemetry's conventions: a counter's has no ``_total`` and a duration's no unit,
which exporters add. Attributes have few values: never an id, a path or a command.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from temporalio.common import (
    MetricCounter,
    MetricGauge,
    MetricHistogramTimedelta,
    MetricMeter,
)


class Kind(Enum):
    """How the values of a metric are combined."""

    COUNTER = "counter"
    GAUGE = "gauge"
    DURATIONS = "histogram"
    """A histogram of durations, in the unit that the exporter is configured for."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row."""

    name: str
    kind: Kind
    description: str
    attributes: tuple[str, ...] = ()
    unit: str | None = None
    """As in UCUM; None for a number of something."""

    buckets_s: tuple[float, ...] | None = None
    """The upper limits of buckets that suit a histogram, in seconds."""

    def counter(self, meter: MetricMeter) -> MetricCounter:
        """Return the counter of this row."""
        assert self.kind is Kind.COUNTER
        return meter.create_counter(self.name, self.description, self.unit)

    def gauge(self, meter: MetricMeter) -> MetricGauge:
        """Return the gauge of this row."""
        assert self.kind is Kind.GAUGE
        return meter.create_gauge(self.name, self.description, self.unit)

    def durations(self, meter: MetricMeter) -> MetricHistogramTimedelta:
        """Return the histogram of this row."""
        assert self.kind is Kind.DURATIONS
        return meter.create_histogram_timedelta(self.name, self.description)


_OF_A_PROVIDER = ("provider", "task_queue")
_OF_AN_OPERATION = (*_OF_A_PROVIDER, "operation")
_WAITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_MINUTE_S, _HOUR_S = 60.0, 3600.0

OPERATIONS = Metric(
    name="sandbox_core_operations",
    kind=Kind.COUNTER,
    description="Attempts at operations that have ended",
    attributes=(*_OF_AN_OPERATION, "outcome"),
)
RETRIES = Metric(
    name="sandbox_core_operation_retries",
    kind=Kind.COUNTER,
    description="Attempts at operations that were not the first",
    attributes=_OF_AN_OPERATION,
)
OPERATION_DURATION = Metric(
    name="sandbox_core_operation_duration",
    kind=Kind.DURATIONS,
    description="How long an attempt took on the worker",
    attributes=_OF_AN_OPERATION,
    buckets_s=(*_WAITS_S, 5 * _MINUTE_S),
)
QUEUE_WAIT = Metric(
    name="sandbox_core_operation_queue_wait",
    kind=Kind.DURATIONS,
    description="How long an attempt waited for a worker, from being scheduled to its start",
    attributes=_OF_AN_OPERATION,
    buckets_s=_WAITS_S,
)
OPERATION_BYTES = Metric(
    name="sandbox_core_operation_bytes",
    kind=Kind.COUNTER,
    description="Content sent to sandboxes (in) and received from them (out)",
    attributes=(*_OF_AN_OPERATION, "direction"),
    unit="By",
)
ACTIVE_OPERATIONS = Metric(
    name="sandbox_core_active_operations",
    kind=Kind.GAUGE,
    description="Operations in progress; those of exec are running commands",
    attributes=_OF_AN_OPERATION,
)
OPEN_SESSIONS = Metric(
    name="sandbox_core_open_sessions",
    kind=Kind.GAUGE,
    description="Sessions that the worker holds",
    attributes=_OF_A_PROVIDER,
)
RELEASED_SESSIONS = Metric(
    name="sandbox_core_released_sessions",
    kind=Kind.COUNTER,
    description="Sessions that the worker has evicted",
    attributes=(*_OF_A_PROVIDER, "reason"),
)
SANDBOX_LIFETIME = Metric(
    name="sandbox_core_sandbox_lifetime",
    kind=Kind.DURATIONS,
    description="How long a sandbox existed, when it is deleted",
    attributes=(*_OF_A_PROVIDER, "deleted_by"),
    buckets_s=(
        *(1.0, 10.0, _MINUTE_S, 5 * _MINUTE_S, 15 * _MINUTE_S),
        *(_HOUR_S, 4 * _HOUR_S, 12 * _HOUR_S, 24 * _HOUR_S, 7 * 24 * _HOUR_S),
    ),
)
REAPED_SANDBOXES = Metric(
    name="sandbox_core_reaped_sandboxes",
    kind=Kind.COUNTER,
    description="Sandboxes of closed workflows that a reap on the worker found",
    attributes=(*_OF_A_PROVIDER, "outcome"),
)
STORAGE_BYTES = Metric(
    name="sandbox_core_storage_bytes",
    kind=Kind.COUNTER,
    description="Content written to the storage and read from it",
    attributes=("kind", "direction"),
    unit="By",
)

METRICS = (
    OPERATIONS,
    RETRIES,
    OPERATION_DURATION,
    QUEUE_WAIT,
    OPERATION_BYTES,
    ACTIVE_OPERATIONS,
    OPEN_SESSIONS,
    RELEASED_SESSIONS,
    SANDBOX_LIFETIME,
    REAPED_SANDBOXES,
    STORAGE_BYTES,
)

HISTOGRAM_BUCKETS = {row.name: row.buckets_s for row in METRICS if row.buckets_s is not None}
"""Buckets that suit the histograms, by name, in seconds: pass them to the exporter's
``histogram_bucket_overrides``, with ``durations_as_seconds``. Temporal's own begin at 50 ms."""
