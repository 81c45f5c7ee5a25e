"""The context of a handler."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sandbox_core.providers.registry import Provider
from sandbox_core.storage.snapshots import SnapshotStore
from sandbox_core.worker.access import Authorize
from sandbox_core.worker.sessions.capacity import Capacity
from sandbox_core.worker.sessions.labelling import Trust
from sandbox_core.worker.sessions.labels import Namespace
from sandbox_core.worker.sessions.pool import Client, SessionPool


@dataclass(frozen=True, kw_only=True)
class Call:
    """One operation at a provider: its client, and the sessions that this worker holds."""

    provider: Provider
    client: Client
    pool: SessionPool = field(default_factory=SessionPool)
    namespace: Namespace | None = None
    """The workflows' namespace; None, and then no labels, if the server does not reveal it."""

    worker_queue: str | None = None
    local_sources: tuple[Path, ...] = ()
    fleet: bool = False
    """Whether storage is configured, so that workers on other hosts share it."""

    capacity: Capacity = field(default_factory=Capacity)
    trust: Trust = field(default_factory=Trust)
    """What the worker has learned about the provider's labels."""

    snapshots: SnapshotStore | None = None
    """The snapshot store for the sessions of every client."""

    authorize: Authorize | None = None
    """Decides about operations in sandboxes that their callers do not own; None allows all."""
