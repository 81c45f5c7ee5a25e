"""Records a worker's metrics about its sessions, in addition to Temporal's about its activities.

``sandbox_core_open_sessions`` (gauge)
    The sessions that the worker holds.
``sandbox_core_released_sessions`` (counter, ``reason``)
    The sessions that it has evicted, because of the ``limit`` on their number or as ``idle``.

Both have the attributes ``provider`` and ``task_queue``.
"""

from __future__ import annotations

from temporalio.common import MetricMeter
from temporalio.runtime import Runtime
from temporalio.worker import Worker


class PoolMetrics:
    """The metrics of the sessions of one provider on one worker."""

    def __init__(self, meter: MetricMeter = MetricMeter.noop) -> None:
        self._open = meter.create_gauge(
            "sandbox_core_open_sessions", "Sessions that the worker holds"
        )
        self._released = meter.create_counter(
            "sandbox_core_released_sessions", "Sessions that the worker has evicted"
        )

    @classmethod
    def of_worker(cls, worker: Worker, provider: str) -> PoolMetrics:
        """Return the metrics, which are exported with the worker's own."""
        runtime = worker.client.service_client.config.runtime or Runtime.default()
        attributes = {"provider": provider, "task_queue": worker.task_queue}
        return cls(runtime.metric_meter.with_additional_attributes(attributes))

    def open(self, number: int) -> None:
        """Record the number of open sessions."""
        self._open.set(number)

    def evicted(self, reason: str) -> None:
        """Count an evicted session."""
        self._released.add(1, {"reason": reason})
