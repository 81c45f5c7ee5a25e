"""Counts the bytes that are written to a storage and read from it."""

from __future__ import annotations

from temporalio.common import MetricMeter

from sandbox_core.wire.metrics import STORAGE_BYTES

_KINDS = ("payloads", "snapshots")


class StorageMetrics:
    """The metrics of one storage in this process; all of its users record in the same."""

    def __init__(self, meter: MetricMeter = MetricMeter.noop) -> None:
        counter = STORAGE_BYTES.counter(meter)
        self._counters = {
            (kind, direction): counter.with_additional_attributes(
                {"kind": kind, "direction": direction}
            )
            for kind in _KINDS
            for direction in ("written", "read")
        }

    def written(self, key: str, size: int) -> None:
        """Count what was written to an object, in bytes."""
        self._count(key, "written", size)

    def read(self, key: str, size: int) -> None:
        """Count what was read from an object, in bytes."""
        self._count(key, "read", size)

    def _count(self, key: str, direction: str, size: int) -> None:
        counter = self._counters.get((key.partition("/")[0], direction))
        if counter is not None:  # Checks of the storage write objects elsewhere.
            counter.add(size)
