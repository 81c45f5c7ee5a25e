"""The sessions that this worker holds open, and how one is opened again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from weakref import WeakValueDictionary

from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.errors import SessionNotOpen
from sandbox_core.wire.agents_models import load_state
from sandbox_core.wire.messages import SessionRef, SessionRequest
from sandbox_core.worker.metrics import PoolMetrics
from sandbox_core.worker.sdk_session import close_dependencies, configure
from sandbox_core.worker.secrets import current_secrets, with_credentials

Client: TypeAlias = "BaseSandboxClient[BaseSandboxClientOptions | None]"

logger = logging.getLogger(__name__)

MAX_SESSIONS = 1000
"""How many sessions a worker holds for a provider before it evicts the longest unused one."""

MAX_IDLE_S = 3600.0
"""How long a worker holds a session that is not used."""

_LOOKS = 4
"""How often idle sessions are looked for within the time that makes one idle."""

_CLOSE_S = 10.0
"""How long a worker that stops waits for the handles of its sessions to close."""

_INTERRUPT_S = 10.0
"""How long operations may take to end before the sandbox is deleted under them."""


UserKey: TypeAlias = "tuple[str, str, str]"
"""A workflow id, a run id, and which of that workflow's handles on the session it is."""


@dataclass(kw_only=True)
class User:
    """A user of an open session: one handle of a workflow."""

    epoch: int
    """The epoch at which it has the session; operations with an earlier one are late."""

    joined: bool = False
    """The session was open already, for others."""

    restored: bool = False
    """It had another sandbox, which is lost."""

    left: bool = False
    """It has shut the session down."""


@dataclass(kw_only=True)
class OpenSession:
    """A live session of the real client, and those who have it."""

    session: SandboxSession
    session_id: str
    users: dict[UserKey, User]
    idempotency_key: str | None = None
    created_by: str | None = None
    """What tells the create from another with the same key."""

    replaces: str | None = None
    """The backend's id of the sandbox that was lost, and whose workspace was restored in this."""

    started: bool = False
    """As it was opened: the answer is the same however often it is asked for."""

    secrets: set[bytes] = field(default_factory=lambda: set(current_secrets().values))
    """What the operations on it have learned of secrets, first of all that which opened it."""

    in_use: set[asyncio.Task[object]] = field(default_factory=set)
    """The operations that are going on."""

    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by what changes the session's state."""

    used_at: float = field(default_factory=time.monotonic)

    def user(self, ref: SessionRef) -> User | None:
        """Return who has the session at the epoch of `ref`."""
        return next((user for user in self.users.values() if user.epoch == ref.epoch), None)

    @property
    def is_ready(self) -> bool:
        """Whether its workspace was started."""
        return self.started or self.session.state.workspace_root_ready

    @property
    def is_used(self) -> bool:
        """Whether a user has not shut it down yet."""
        return any(not user.left for user in self.users.values())

    def is_shared_by(self, user: User) -> bool:
        """Return whether others than `user` have not shut it down."""
        return any(not other.left for other in self.users.values() if other is not user)


@dataclass(kw_only=True)
class SessionPool:
    """The open sessions of one provider on one worker.

    To evict a session closes its handle and does not delete its sandbox: the workflow resumes it
    when it is needed.
    """

    max_sessions: int = MAX_SESSIONS
    max_idle_s: float = MAX_IDLE_S
    metrics: PoolMetrics = field(default_factory=PoolMetrics)
    # The longest unused one comes first.
    _open: OrderedDict[str, OpenSession] = field(default_factory=OrderedDict)
    # A caller that opens a session, or waits to, keeps its lock alive.
    _locks: MutableMapping[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def evicting(self) -> AsyncIterator[None]:
        """Evict what is not used for the duration, and at its end everything."""
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
        """Hold a session that was just created or resumed, and evict those not needed."""
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
        """Return what names the open sessions' sandboxes: idempotency keys, or session ids."""
        return {held.idempotency_key or session_id for session_id, held in self._open.items()}

    def find(self, session_id: str) -> OpenSession | None:
        """Return the session with this id, at any epoch."""
        return self._open.get(session_id)

    def holds(self, ref: SessionRef) -> bool:
        """Return whether the session is open here, at this epoch."""
        held = self._open.get(ref.session_id)
        return held is not None and held.user(ref) is not None

    def created(self, idempotency_key: str) -> OpenSession | None:
        """Return the session that the last attempt of the same create has made here."""
        made = (
            held
            for held in reversed(self._open.values())
            if held.idempotency_key == idempotency_key
        )
        return next(made, None)

    def remove(self, session_id: str) -> None:
        """Evict a session whose sandbox was deleted, or is gone."""
        held = self._open.pop(session_id, None)
        if held is not None:
            self._close(held)
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
            SessionNotOpen: It is not held here, or not at that epoch.
        """
        held = self._open.get(request.session.session_id)
        if held is None or held.user(request.session) is None:
            raise SessionNotOpen(f"session {request.session.session_id} is not open here")
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
            held.used_at = time.monotonic()

    @asynccontextmanager
    async def opening(self, session_id: str) -> AsyncIterator[None]:
        """Let one caller at a time open the session with this id."""
        lock = self._locks.setdefault(session_id, asyncio.Lock())
        async with lock:
            yield


async def _close_handle(session: SandboxSession) -> None:
    try:
        await close_dependencies(session)
    except Exception as error:  # noqa: BLE001 - a provider's, and nobody waits for it
        logger.info("the handle of a session could not be closed: %s", error)
