"""Holds the open sessions of this worker, and evicts those that are not used."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakValueDictionary

from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.errors import SessionNotOpen
from sandbox_core.wire.agents_models import load_state
from sandbox_core.wire.messages import SessionRef, SessionRequest
from sandbox_core.worker.commands import abandoned, between_polls
from sandbox_core.worker.commands.helper import close_helpers
from sandbox_core.worker.metrics import ProviderMetrics
from sandbox_core.worker.sdk_session import close_dependencies, configure
from sandbox_core.worker.secrets import current_secrets, with_credentials

Client: TypeAlias = "BaseSandboxClient[BaseSandboxClientOptions | None]"

logger = logging.getLogger(__name__)

MAX_SESSIONS = 1000
"""How many sessions of a provider a worker holds before it evicts the least recently used."""

MAX_IDLE_S = 3600.0
"""How long a worker holds an unused session."""

_LOOKS = 4
"""How often idle sessions are looked for within `max_idle_s`."""

_CLOSE_S = 10.0
"""How long a stopping worker waits for the handles of its sessions to close."""

_INTERRUPT_S = 10.0
"""How long cancelled operations may take before their sandbox is deleted regardless."""


UserKey: TypeAlias = "tuple[str, str, str]"
"""A workflow id, a run id, and the id of one of that workflow's handles of the session."""


@dataclass(kw_only=True)
class User:
    """One workflow handle of an open session."""

    epoch: int
    """The epoch of its last resume; operations with an earlier one are stale."""

    joined: bool = False
    """Whether it joined a session that others had open."""

    restored: bool = False
    """Whether its former sandbox was lost, and the workspace restored in this one."""

    left: bool = False
    """Whether it has shut the session down."""


@dataclass(kw_only=True)
class OpenSession:
    """A live session of the provider's client, and its users."""

    session: SandboxSession
    session_id: str
    users: dict[UserKey, User]
    idempotency_key: str | None = None
    created_by: str | None = None
    """The digest of the create request, which tells it from another with the same key."""

    replaces: str | None = None
    """The backend's id of the lost sandbox whose workspace was restored in this one."""

    started: bool = False
    """Whether its workspace was in use when it was opened, so that repeated answers are equal."""

    secrets: set[bytes] = field(default_factory=lambda: set(current_secrets().values))
    """The secrets that its operations have learned, beginning with the one that opened it."""

    in_use: set[asyncio.Task[object]] = field(default_factory=set)
    """The operations in progress."""

    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by operations that change the session's state."""

    used_at: float = field(default_factory=time.monotonic)

    def user(self, ref: SessionRef) -> User | None:
        """Return the user that has the session at the epoch of `ref`; None if there is none."""
        return next((user for user in self.users.values() if user.epoch == ref.epoch), None)

    @property
    def is_ready(self) -> bool:
        """Whether its workspace has been started."""
        return self.started or self.session.state.workspace_root_ready

    @property
    def is_used(self) -> bool:
        """Whether at least one user has not shut it down."""
        return any(not user.left for user in self.users.values())

    def is_shared_by(self, user: User) -> bool:
        """Return whether users other than `user` have not shut it down."""
        return any(not other.left for other in self.users.values() if other is not user)


@dataclass(kw_only=True)
class SessionPool:
    """The open sessions of one provider on one worker.

    Evicting a session closes its handle and keeps its sandbox: the workflow resumes it when it
    needs it.
    """

    max_sessions: int = MAX_SESSIONS
    max_idle_s: float = MAX_IDLE_S
    metrics: ProviderMetrics = field(default_factory=ProviderMetrics)
    # The least recently used comes first.
    _open: OrderedDict[str, OpenSession] = field(default_factory=OrderedDict)
    # A caller that opens a session, or waits for that, keeps its lock alive.
    _locks: MutableMapping[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def evicting(self) -> AsyncIterator[None]:
        """Evict unused sessions while the context is open, and all of them at its end."""
        evicting = asyncio.create_task(self._evict_for_ever())
        try:
            yield
        finally:
            evicting.cancel()
            for session_id in list(self._open):
                self.remove(session_id)
            if self._closing:
                await asyncio.wait(self._closing, timeout=_CLOSE_S)

    def add(self, opened: OpenSession) -> None:
        """Hold a session that was just created or resumed, and evict unused ones."""
        replaced = self._open.get(opened.session_id)
        self._open[opened.session_id] = opened
        self._open.move_to_end(opened.session_id)
        if replaced is not None and replaced is not opened and not replaced.in_use:
            self._close(replaced)
        self._evict_unused(but=opened)
        self.metrics.open(len(self._open))

    def _evict_unused(self, *, but: OpenSession | None = None) -> None:
        forgotten = time.monotonic() - self.max_idle_s
        for session_id, held in list(self._open.items()):
            full = len(self._open) > self.max_sessions
            if not full and held.used_at > forgotten:
                break
            if not held.in_use and held is not but:
                del self._open[session_id]
                self._close(held)
                self.metrics.evicted("limit" if full else "idle")

    async def _evict_for_ever(self) -> None:
        while True:
            await asyncio.sleep(max(self.max_idle_s / _LOOKS, 0.01))
            self._evict_unused()
            self.metrics.open(len(self._open))

    def _close(self, held: OpenSession) -> None:
        closing = asyncio.ensure_future(_close_handle(held.session))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def keys(self) -> set[str]:
        """Return the open sessions' idempotency keys, or the session ids of those without one."""
        return {held.idempotency_key or session_id for session_id, held in self._open.items()}

    def find(self, session_id: str) -> OpenSession | None:
        """Return the session with this id, at any epoch."""
        return self._open.get(session_id)

    def sessions(self) -> Iterator[OpenSession]:
        """Iterate over the open sessions, the most recently used first."""
        return iter(list(reversed(self._open.values())))

    def holds(self, ref: SessionRef) -> bool:
        """Return whether the session is open here, at this epoch."""
        held = self._open.get(ref.session_id)
        return held is not None and held.user(ref) is not None

    def created(self, idempotency_key: str) -> OpenSession | None:
        """Return the session that the create's last attempt made here; None if there is none."""
        made = (
            held
            for held in reversed(self._open.values())
            if held.idempotency_key == idempotency_key
        )
        return next(made, None)

    def remove(self, session_id: str) -> None:
        """Evict a session, for example because its sandbox is gone."""
        held = self._open.pop(session_id, None)
        if held is not None:
            self._close(held)
        self.metrics.open(len(self._open))

    async def interrupt(self, held: OpenSession) -> None:
        """Cancel the operations in progress on a session whose sandbox is about to be deleted."""
        await between_polls.abandon(held.session)
        busy = held.in_use - {asyncio.current_task()}
        for task in busy:
            task.cancel()
        if busy:
            await asyncio.wait(busy, timeout=_INTERRUPT_S)

    @asynccontextmanager
    async def use(
        self, request: SessionRequest, *, shut_down: bool = False
    ) -> AsyncIterator[SandboxSession]:
        """Yield the session of `request`, with the workflow's changes to its state applied.

        Args:
            request: Names the session and the epoch.
            shut_down: Whether a session that all users have shut down will do. Otherwise it is
                evicted: the sessions of some backends would make another sandbox.

        Raises:
            SessionNotOpen: The session is not held here, or not at that epoch.
        """
        held = self._open.get(request.session.session_id)
        if held is None or held.user(request.session) is None:
            raise SessionNotOpen(f"session {request.session.session_id} is not open here")
        if not (shut_down or held.is_used):
            self.remove(held.session_id)
            raise SessionNotOpen(f"session {held.session_id} was shut down")
        self._open.move_to_end(request.session.session_id)
        secrets = current_secrets()
        secrets.values |= held.secrets
        if request.state is not None:
            state = load_state(request.state)
            state.manifest = with_credentials(state.manifest)
            await secrets.learn(state.manifest)
            held.session.state = state
        if request.settings is not None:
            configure(held.session, request.settings)
        task = asyncio.current_task()
        assert task is not None, "activities are tasks"
        held.in_use.add(task)
        try:
            yield held.session
        finally:
            held.in_use.discard(task)
            held.secrets |= secrets.values
            between_polls.learn(held.session, held.secrets)
            held.used_at = time.monotonic()

    @asynccontextmanager
    async def opening(self, session_id: str) -> AsyncIterator[None]:
        """Let only one caller at a time open the session with this id."""
        lock = self._locks.setdefault(session_id, asyncio.Lock())
        async with lock:
            yield


async def _close_handle(session: SandboxSession) -> None:
    try:
        abandoned.abandon(session)
        await between_polls.abandon(session)
        await close_helpers(session)
        await close_dependencies(session)
    except Exception as error:  # noqa: BLE001 - a provider's, and nobody waits for it
        logger.info("the handle of a session could not be closed: %s", error)
