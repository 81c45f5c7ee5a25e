"""Puts the storage into Temporal's clients, workers and replayers."""

from __future__ import annotations

import logging
import weakref
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import MetricMeter
from temporalio.converter import DataConverter
from temporalio.worker import Interceptor, Worker

from sandbox_core.storage.interceptor import LimitsInterceptor
from sandbox_core.storage.location import STORAGE_VARIABLE, Location, open_directory
from sandbox_core.storage.metrics import StorageMetrics
from sandbox_core.storage.object_store import ObjectStore
from sandbox_core.storage.outage import Outage
from sandbox_core.storage.payload_driver import PayloadDriver, with_storage
from sandbox_core.storage.snapshots import SnapshotStore
from sandbox_core.wire.limits import INLINE_BYTES, THRESHOLD_BYTES, limits_with

logger = logging.getLogger(__name__)


class Storage:
    """The payload driver and snapshots of one storage, and the resulting limits, in bytes."""

    def __init__(
        self,
        location: Location,
        *,
        patience: timedelta,
        max_file_bytes: int,
        max_output_bytes: int,
        threshold: int | None = None,
    ) -> None:
        self._location = location
        self._store = ObjectStore(location)
        self._outage = Outage(patience)
        self._driver = PayloadDriver(self._store, self._outage)
        if threshold is None:
            threshold = INLINE_BYTES if location.is_default else THRESHOLD_BYTES
        if not 0 <= threshold <= INLINE_BYTES:
            raise ValueError(
                f"storage_threshold is {threshold:,}; it must be 0 to {INLINE_BYTES:,}: Temporal "
                f"may refuse larger payloads"
            )
        self._threshold = threshold
        self._max_file_bytes = max_file_bytes
        self._max_output_bytes = max_output_bytes
        # The interceptors of workers with this storage, not with another plugin's.
        self._interceptors: weakref.WeakSet[Interceptor] = weakref.WeakSet()
        self.snapshots = SnapshotStore(self._store)

    @property
    def is_configured(self) -> bool:
        """Whether it was configured, so that workers on other hosts share it."""
        return not self._location.is_default

    def check(self) -> None:
        """Check that a configured directory is usable; cloud stores are first contacted later.

        Raises:
            StorageError: It cannot.
        """
        if self.is_configured:
            open_directory(self._location)

    def add_to(self, converter: DataConverter) -> DataConverter:
        """Return `converter` with this storage, unless it has one."""
        return with_storage(converter, self._driver, self._threshold)

    def client_with(self, client: Client) -> Client:
        """Return a client for a worker: `client`, or a copy with this storage if it has none.

        A worker takes its data converter from the client in its configuration. So a plugin that
        only the worker has can add storage, without changing the user's client.
        """
        config = client.config(active_config=True)
        if config["data_converter"].external_storage is not None:
            return client
        config["data_converter"] = self.add_to(config["data_converter"])
        # The plugins have already configured the client.
        config["plugins"] = []
        return Client(**config)

    def interceptor(self, converter: DataConverter) -> LimitsInterceptor:
        """Return the interceptor that gives workflows and activities the limits of `converter`."""
        external = converter.external_storage
        interceptor = LimitsInterceptor(
            limits_with(
                max_file_bytes=self._max_file_bytes,
                max_output_bytes=self._max_output_bytes,
                stored=None if external is None else external.payload_size_threshold,
                outage=self._outage.problem,
            )
        )
        self._interceptors.add(interceptor)
        return interceptor

    def record_to(self, meter: MetricMeter) -> None:
        """Record metrics with `meter`, for all clients and workers with this storage."""
        self._store.metrics = StorageMetrics(meter)

    def warn_if_default(self, worker: Worker) -> None:
        """Warn which default storage a starting worker uses, if none was configured."""
        interceptors = worker.config(active_config=True).get("interceptors", ())
        if self._location.is_default and not self._interceptors.isdisjoint(interceptors):
            logger.warning(
                "no storage is configured: large payloads and workspace snapshots go to %s, which "
                "works only while all workers run on this host. Set SandboxPlugin(storage=...) or "
                "%s for every client and worker, for example to s3://bucket/prefix.",
                self._location.url,
                STORAGE_VARIABLE,
            )
