"""Records a worker's metrics of one provider; see `sandbox_core.wire.metrics`."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import MetricCounter, MetricMeter
from temporalio.runtime import Runtime
from temporalio.worker import Worker

from sandbox_core.wire import metrics

MAX_OUTCOMES = 100
"""How many different outcomes are counted by name: a vendor's errors have any names."""

OTHER = "other"
"""The outcome of the rest."""


def meter_of(worker: Worker) -> MetricMeter:
    """Return the meter whose metrics are exported with the worker's own."""
    runtime = worker.client.service_client.config.runtime or Runtime.default()
    return runtime.metric_meter


class ProviderMetrics:
    """The metrics of one provider on one worker; its methods are called on one thread."""

    def __init__(self, meter: MetricMeter = MetricMeter.noop) -> None:
        self._open = metrics.OPEN_SESSIONS.gauge(meter)
        self._released = metrics.RELEASED_SESSIONS.counter(meter)
        self._lifetime = metrics.SANDBOX_LIFETIME.durations(meter)
        self._reaped = metrics.REAPED_SANDBOXES.counter(meter)
        self._meter = meter
        self._by_operation: dict[str, OperationMetrics] = {}

    @classmethod
    def of_worker(cls, worker: Worker, provider: str) -> ProviderMetrics:
        """Return the metrics, which are exported with the worker's own."""
        attributes = {"provider": provider, "task_queue": worker.task_queue}
        return cls(meter_of(worker).with_additional_attributes(attributes))

    def operation(self, name: str) -> OperationMetrics:
        """Return the metrics of an operation."""
        found = self._by_operation.get(name)
        if found is None:
            of = {"operation": name}
            found = OperationMetrics(self._meter.with_additional_attributes(of))
            self._by_operation[name] = found
        return found

    def open(self, number: int) -> None:
        """Record the number of open sessions."""
        self._open.set(number)

    def evicted(self, reason: str) -> None:
        """Count an evicted session: because of the ``limit`` on their number, or as ``idle``."""
        self._released.add(1, {"reason": reason})

    def deleted(self, seconds: float, by: str) -> None:
        """Record how long a sandbox existed that a ``workflow`` or the ``reaper`` deleted."""
        self._lifetime.record(timedelta(seconds=max(seconds, 0.0)), {"deleted_by": by})

    def reaped(self, outcome: str) -> None:
        """Count a sandbox that was found by `reap`."""
        self._reaped.add(1, {"outcome": outcome})


class OperationMetrics:
    """The metrics of one operation of a provider."""

    # Binding attributes to a metric costs more than recording it, so it is done once.

    def __init__(self, meter: MetricMeter) -> None:
        self._ended = metrics.OPERATIONS.counter(meter)
        self._by_outcome: dict[str, MetricCounter] = {}
        self._retries = metrics.RETRIES.counter(meter)
        self._duration = metrics.OPERATION_DURATION.durations(meter)
        self._waited = metrics.QUEUE_WAIT.durations(meter)
        size = metrics.OPERATION_BYTES.counter(meter)
        self._bytes_in = size.with_additional_attributes({"direction": "in"})
        self._bytes_out = size.with_additional_attributes({"direction": "out"})
        self._active_gauge = metrics.ACTIVE_OPERATIONS.gauge(meter)
        self._active = 0

    def began(self, *, attempt: int, waited_s: float) -> None:
        """Record the beginning of an attempt, which `ended` must follow."""
        self._active += 1
        self._active_gauge.set(self._active)
        self._waited.record(timedelta(seconds=waited_s))
        if attempt > 1:
            self._retries.add(1)

    def ended(self, *, outcome: str, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """Record the end of an attempt."""
        self._active -= 1
        self._active_gauge.set(self._active)
        self._duration.record(timedelta(seconds=seconds))
        self._counter(outcome).add(1)
        if bytes_in:
            self._bytes_in.add(bytes_in)
        if bytes_out:
            self._bytes_out.add(bytes_out)

    def _counter(self, outcome: str) -> MetricCounter:
        found = self._by_outcome.get(outcome)
        if found is None:
            if len(self._by_outcome) >= MAX_OUTCOMES and outcome != OTHER:
                return self._counter(OTHER)
            found = self._ended.with_additional_attributes({"outcome": outcome})
            self._by_outcome[outcome] = found
        return found
