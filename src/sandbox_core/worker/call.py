"""What a handler works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sandbox_core.providers.registry import Provider
from sandbox_core.storage.snapshots import SnapshotStore
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
    """Where the workflows are; None if the server does not say, and sandboxes go without labels."""

    worker_queue: str | None = None
    local_sources: tuple[Path, ...] = ()
    fleet: bool = False
    """Whether a storage is configured, which workers on other hosts share."""

    capacity: Capacity = field(default_factory=Capacity)
    trust: Trust = field(default_factory=Trust)
    """What the worker knows of the provider's labels."""

    snapshots: SnapshotStore | None = None
    """What the sessions of every client have to find."""
