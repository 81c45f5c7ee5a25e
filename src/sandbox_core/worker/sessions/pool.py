"""The sessions that this worker holds open, and how one is opened again."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from agents.run_config import SandboxArchiveLimits, SandboxConcurrencyLimits
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.errors import SessionNotOpen
from sandbox_core.wire.agents_models import load_state
from sandbox_core.wire.messages import SessionRef, SessionRequest, SessionSettings
from sandbox_core.wire.mount_credentials import redact_credentials, with_credentials
from sandbox_core.worker.metrics import PoolMetrics

Client: TypeAlias = "BaseSandboxClient[BaseSandboxClientOptions | None]"

MAX_SESSIONS = 1000
"""How many sessions a worker holds for a provider before it lets go of the longest unused one."""

MAX_IDLE_S = 3600.0
"""How long a worker holds a session that is not used."""

_INTERRUPT_S = 10.0
"""How long operations may take to end before the sandbox is deleted under them."""


@dataclass(kw_only=True)
class OpenSession:
    """A live session of the real client, and the epoch at which the workflow knows it."""

    session: SandboxSession
    ref: SessionRef
    create_key: str | None = None
    created_by: str | None = None
    """What tells the create from another with the same key."""

    restored: bool = False
    started: bool = False
    """As it was opened: the answer is the same however often it is asked for."""

    in_use: set[asyncio.Task[object]] = field(default_factory=set)
    """The operations that are going on."""

    used_at: float = field(default_factory=time.monotonic)


@dataclass(kw_only=True)
class SessionPool:
    """The open sessions of one provider on one worker.

    To let go of a session is not to delete its sandbox: the workflow resumes it when it is needed.
    """

    max_sessions: int = MAX_SESSIONS
    max_idle_s: float = MAX_IDLE_S
    metrics: PoolMetrics = field(default_factory=PoolMetrics)
    # The longest unused one comes first.
    _open: OrderedDict[str, OpenSession] = field(default_factory=OrderedDict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, opened: OpenSession) -> None:
        """Hold a session that was just created or resumed, and let go of those not needed."""
        self._open[opened.ref.session_id] = opened
        self._open.move_to_end(opened.ref.session_id)
        forgotten = time.monotonic() - self.max_idle_s
        for session_id, held in list(self._open.items()):
            full = len(self._open) > self.max_sessions
            if not full and held.used_at > forgotten:
                break
            if not held.in_use and held is not opened:
                del self._open[session_id]
                self.metrics.released("limit" if full else "idle")
        self.metrics.open(len(self._open))

    def keys(self) -> set[str]:
        """Return what names the sandboxes of the open sessions: create keys, or session ids."""
        return {held.create_key or session_id for session_id, held in self._open.items()}

    def find(self, session_id: str) -> OpenSession | None:
        """Return the session with this id, of whatever epoch."""
        return self._open.get(session_id)

    def created(self, create_key: str) -> OpenSession | None:
        """Return the session that the last attempt of the same create has made here."""
        made = (held for held in reversed(self._open.values()) if held.create_key == create_key)
        return next(made, None)

    def remove(self, session_id: str) -> None:
        """Let go of a session whose sandbox was deleted, or is gone."""
        self._open.pop(session_id, None)
        self.metrics.open(len(self._open))

    async def interrupt(self, held: OpenSession) -> None:
        """End what is going on in a session: its sandbox is about to be deleted."""
        busy = held.in_use - {asyncio.current_task()}
        for task in busy:
            task.cancel()
        if busy:
            await asyncio.wait(busy, timeout=_INTERRUPT_S)

    @asynccontextmanager
    async def use(self, request: SessionRequest) -> AsyncIterator[SandboxSession]:
        """Yield the session that `request` names, with what the workflow has changed applied.

        Raises:
            SessionNotOpen: It is not held here, or only a handle of another epoch is.
        """
        held = self._open.get(request.session.session_id)
        if held is None or held.ref.epoch != request.session.epoch:
            raise SessionNotOpen(f"session {request.session.session_id} is not open here")
        self._open.move_to_end(request.session.session_id)
        if request.state is not None:
            state = load_state(request.state)
            state.manifest = with_credentials(state.manifest)
            held.session.state = state
        redact_credentials(held.session.state.manifest)
        if request.settings is not None:
            configure(held.session, request.settings)
        task = asyncio.current_task()
        assert task is not None, "activities are tasks"
        held.in_use.add(task)
        try:
            yield held.session
        finally:
            held.in_use.discard(task)
            held.used_at = time.monotonic()

    @asynccontextmanager
    async def opening(self, session_id: str) -> AsyncIterator[None]:
        """Let one caller at a time open the session with this id."""
        lock = self._locks.setdefault(session_id, asyncio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(session_id) is lock:
                del self._locks[session_id]


def configure(session: SandboxSession, settings: SessionSettings) -> None:
    """Give a live session the settings that the SDK's runtime gave the workflow's."""
    session._set_concurrency_limits(
        SandboxConcurrencyLimits(
            manifest_entries=settings.manifest_entries, local_dir_files=settings.local_dir_files
        )
    )
    limits = settings.archive_limits
    session._set_archive_limits(
        None if limits is None else SandboxArchiveLimits(**limits.model_dump())
    )
    for path in settings.persist_skip_paths:
        session.register_persist_workspace_skip_path(path)
