"""A provider on one worker: its client, its open sessions, and its activities."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from sandbox_core.errors import ProviderError, ProviderLoad
from sandbox_core.providers.activation import close_client, make_client
from sandbox_core.providers.registry import Provider
from sandbox_core.storage.snapshots import SnapshotStore, offer_snapshots
from sandbox_core.worker.access import Authorize
from sandbox_core.worker.activities import Activity, make_activities
from sandbox_core.worker.call import Call
from sandbox_core.worker.metrics import ProviderMetrics
from sandbox_core.worker.peer import PeerActivity, PeerSessions
from sandbox_core.worker.secrets import Allowed
from sandbox_core.worker.sessions.capacity import Capacity
from sandbox_core.worker.sessions.labelling import Trust
from sandbox_core.worker.sessions.labels import Namespace
from sandbox_core.worker.sessions.pool import Client, SessionPool

logger = logging.getLogger(__name__)


class ProviderRuntime:
    """A loaded provider, or the error that replaces it.

    The activities of an unusable provider are also registered, and raise that error. So a workflow
    learns the reason, not only that no worker offers the provider.
    """

    def __init__(
        self,
        provider: Provider | ProviderError,
        *,
        name: str | None = None,
        origin: str | None = None,
        required: bool = False,
        snapshots: SnapshotStore | None = None,
        local_sources: tuple[Path, ...] = (),
        worker_env: Allowed = frozenset(),
        max_sandboxes: int | None = None,
        fleet: bool = False,
        authorize: Authorize | None = None,
    ) -> None:
        self._provider = provider
        self._required = required
        self._snapshots = snapshots
        self._local_sources = local_sources
        self._worker_env = worker_env
        self.name = name or cast("Provider", provider).name
        self._which = f"provider {self.name!r}" + (f" ({origin})" if origin else "")
        self._metrics = ProviderMetrics()
        self._pool = SessionPool()
        self._fleet = fleet
        self._authorize = authorize
        self._capacity = Capacity(limit=max_sandboxes)
        self._trust = Trust()
        self._namespace: Namespace | None = None
        self._client: Client | None = None
        self._worker_queue: str | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it is a provider without a known error."""
        return not isinstance(self._provider, ProviderError)

    def activities(self) -> list[Activity]:
        """Return the activities, one per operation."""
        return make_activities(
            self.name, self._call, self._worker_env, metrics=lambda: self._metrics
        )

    def peer_activities(self, name: str) -> list[PeerActivity]:
        """Return the activities of the OpenAI plugin's own sandboxes, for its provider `name`."""
        return PeerSessions(
            name,
            self._call,
            self._worker_env,
            provider=self.name,
            metrics=lambda: self._metrics,
        ).activities()

    def model_modules(self) -> frozenset[str]:
        """Return the packages of the provider and of its models."""
        if isinstance(self._provider, ProviderError):
            return frozenset()
        modules = (type(self._provider).__module__, self._provider.options_type.__module__)
        return frozenset(module.partition(".")[0] for module in modules) - {"__main__"}

    @asynccontextmanager
    async def active(
        self,
        worker_queue: str | None = None,
        namespace: Namespace | None = None,
        metrics: ProviderMetrics | None = None,
    ) -> AsyncIterator[None]:
        """Provide a client within this context; if it cannot be created, the error replaces it.

        Args:
            worker_queue: The worker's own queue, which workflows with a session here are told.
            namespace: The namespace of the sandboxes' owners; None for no labels.
            metrics: Records the operations and the number of sessions.

        Raises:
            ProviderLoad: The client cannot be created, and the provider is required.
        """
        if metrics is not None:
            self._metrics = self._pool.metrics = metrics
        provider = self._provider
        if isinstance(provider, ProviderError):
            yield
            return
        try:
            client = await make_client(provider, self._which)
        except ProviderLoad as error:
            self._provider = error
            if self._required:
                raise
            logger.warning("sandbox %s", error)
            yield
            return
        self._client = client
        if self._snapshots is not None:
            offer_snapshots(self._client, self._snapshots)
        self._worker_queue, self._namespace = worker_queue, namespace
        try:
            async with self._pool.evicting():
                yield
        finally:
            self._client = None
            await close_client(client)

    def _call(self) -> Call:
        if isinstance(self._provider, ProviderError):
            # A new error each time: raising the same one again extends its traceback.
            raise type(self._provider)(self._provider.message)
        assert self._client is not None, "activities run only while the worker does"
        return Call(
            provider=self._provider,
            client=self._client,
            pool=self._pool,
            namespace=self._namespace,
            worker_queue=self._worker_queue,
            fleet=self._fleet,
            capacity=self._capacity,
            local_sources=self._local_sources,
            trust=self._trust,
            snapshots=self._snapshots,
            authorize=self._authorize,
        )
