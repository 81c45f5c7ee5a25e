"""The sessions that this worker holds open, and how one is opened again."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from agents.run_config import SandboxArchiveLimits, SandboxConcurrencyLimits
from agents.sandbox.entries import Mount
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot

from sandbox_core.codec import load_state
from sandbox_core.errors import SandboxLost, SessionNotOpen
from sandbox_core.messages import SessionRef, SessionRequest, SessionSettings
from sandbox_core.providers import SupportsExists, SupportsIdentity
from sandbox_core.providers.registry import Provider

Client: TypeAlias = "BaseSandboxClient[BaseSandboxClientOptions | None]"

MAX_SESSIONS = 1000
"""How many sessions a worker holds for a provider before it lets go of the longest unused one."""


@dataclass(kw_only=True)
class OpenSession:
    """A live session of the real client, and the epoch at which the workflow knows it."""

    session: SandboxSession
    ref: SessionRef
    create_key: str | None = None
    in_use: int = 0


@dataclass(kw_only=True)
class SessionPool:
    """The open sessions of one provider on one worker.

    To let go of a session is not to delete its sandbox: the workflow resumes it when it is needed.
    """

    max_sessions: int = MAX_SESSIONS
    _open: OrderedDict[str, OpenSession] = field(default_factory=OrderedDict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, opened: OpenSession) -> None:
        """Hold a session that was just created or resumed."""
        self._open[opened.ref.session_id] = opened
        self._open.move_to_end(opened.ref.session_id)
        idle = [key for key, held in self._open.items() if not held.in_use]
        for key in idle[: max(0, len(self._open) - self.max_sessions)]:
            del self._open[key]

    def find(self, session_id: str) -> OpenSession | None:
        """Return the session with this id, of whatever epoch."""
        return self._open.get(session_id)

    def created(self, create_key: str) -> OpenSession | None:
        """Return the session that an earlier attempt of the same create has made here."""
        return next((held for held in self._open.values() if held.create_key == create_key), None)

    def remove(self, session_id: str) -> None:
        """Let go of a session whose sandbox was deleted."""
        self._open.pop(session_id, None)

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
            held.session.state = load_state(request.state)
        if request.settings is not None:
            configure(held.session, request.settings)
        held.in_use += 1
        try:
            yield held.session
        finally:
            held.in_use -= 1

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


@dataclass(frozen=True, kw_only=True)
class Resumed:
    """A resumed session, and whether its workspace had to be restored from a snapshot."""

    session: SandboxSession
    restored: bool = False


async def resume(
    provider: Provider,
    client: Client,
    state: SandboxSessionState,
    *,
    started: bool,
    sandbox_id: str | None,
) -> Resumed:
    """Open the session of `state`, and if its workspace was in use, make it usable again.

    Raises:
        SandboxLost: The workspace was in use, its sandbox is gone, and there is no snapshot.
    """
    # The SDK's clients answer a lookup that fails with a new, empty sandbox.
    known = sandbox_id or sandbox_identity(provider, state)
    present = None
    if started and known is not None and isinstance(provider, SupportsExists):
        present = await provider.exists(client, known)
        if not present and not await _restorable(state, client._resolve_dependencies()):
            raise _lost(provider, known)
    session = await client.resume(state)
    if not started:
        return Resumed(session=session)
    actual = sandbox_identity(provider, session.state)
    if present is False or actual != known:
        if not await _restorable(session.state, session.dependencies):
            await client.delete(session)
            raise _lost(provider, known)
        await session.start()
        return Resumed(session=session, restored=True)
    await restart(session)
    return Resumed(session=session)


async def restart(session: SandboxSession) -> None:
    """Start a session whose workspace is in use, without touching the workspace.

    The SDK's `start` would restore the last snapshot or write the manifest's files again, over
    whatever has happened in the workspace since. So for its duration the session has no snapshot,
    and no manifest entries but mounts, which a restarted sandbox needs again.
    """
    inner = session._inner
    inner._set_start_state_preserved(True)
    state = session.state
    snapshot, manifest = state.snapshot, state.manifest
    state.workspace_root_ready = True
    state.snapshot = NoopSnapshot(id=snapshot.id)
    state.manifest = manifest.model_copy(
        update={"entries": {k: v for k, v in manifest.entries.items() if isinstance(v, Mount)}}
    )
    try:
        await session.start()
    finally:
        session.state.snapshot, session.state.manifest = snapshot, manifest


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


def sandbox_identity(provider: Provider, state: SandboxSessionState) -> str | None:
    """Return the backend's id of the sandbox, if the provider can tell."""
    return provider.identity(state) if isinstance(provider, SupportsIdentity) else None


async def _restorable(state: SandboxSessionState, dependencies: Dependencies | None) -> bool:
    return await state.snapshot.restorable(dependencies=dependencies)


def _lost(provider: Provider, sandbox_id: str | None) -> SandboxLost:
    where = f" on host {socket.gethostname()}" if provider.host_bound else ""
    return SandboxLost(
        f"sandbox {sandbox_id} of provider {provider.name!r} does not exist any more{where}, and "
        f"its workspace was never saved to a snapshot. Create a new session, or save with "
        f"session.stop() what must outlive a sandbox."
    )
