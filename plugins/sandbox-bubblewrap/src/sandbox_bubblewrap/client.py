"""The client: creates sandboxes on this host for this user, and finds them again."""

from __future__ import annotations

import asyncio
import uuid

from agents.sandbox import Manifest
from agents.sandbox._mount_security import redact_mount_error_data
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, resolve_snapshot

from sandbox_bubblewrap import launch
from sandbox_bubblewrap.models import (
    BubblewrapSandboxClientOptions,
    BubblewrapSandboxSessionState,
    refusal,
)
from sandbox_bubblewrap.session import BubblewrapSandboxSession
from sandbox_bubblewrap.session_base import Made
from sandbox_bubblewrap.store import Store, default_store
from sandbox_core.providers import LabellingClient


class BubblewrapSandboxClient(
    LabellingClient, BaseSandboxClient[BubblewrapSandboxClientOptions | None]
):
    """Sandboxes on this host, each a `bwrap` process that outlives the worker that started it."""

    backend_id = "bubblewrap"
    supports_default_options = True

    def __init__(self, *, instrumentation: Instrumentation | None = None) -> None:
        self._instrumentation = instrumentation or Instrumentation()

    @property
    def store(self) -> Store:
        """The store that holds the sandboxes."""
        return default_store()

    @redact_mount_error_data
    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: BubblewrapSandboxClientOptions | None = None,
    ) -> SandboxSession:
        """Create a sandbox, and start it.

        Raises:
            ConfigurationError: The manifest requires a feature that sandboxes here lack.
            BubblewrapUnusable: There is no ``bwrap``, or the kernel does not let it work.
            LimitNotKept: The options are `strict`, and a limit cannot be enforced.
            StoreUnsafe: The folder for sandboxes cannot be used.
        """
        manifest = manifest if manifest is not None else Manifest()
        options = options if options is not None else BubblewrapSandboxClientOptions()
        self._validate_manifest_for_create(manifest)
        _check(manifest)
        if options.exposed_ports and options.network != "host":
            raise refusal("exposed_ports require network='host'", "start")
        session_id = uuid.uuid4()
        resolved = resolve_snapshot(snapshot, str(session_id))

        made = await self._made(manifest.root, options)
        state = BubblewrapSandboxSessionState(
            session_id=session_id,
            manifest=manifest,
            snapshot=resolved,
            exposed_ports=options.exposed_ports,
            options=options,
            sandbox_id=made.sandbox.id,
            limits=made.limits,
        )
        return self._opened(state)

    @redact_mount_error_data
    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Open the sandbox of a state, and start it if it is not running.

        If it is gone, the session's `start` creates another.

        Raises:
            TypeError: The state is another backend's.
        """
        if not isinstance(state, BubblewrapSandboxSessionState):
            raise TypeError(f"not a state of this client: {type(state).__name__}")
        state.assert_path_grants_rebound()
        _check(state.manifest)
        session = self._opened(state)
        inner = session._inner
        assert isinstance(inner, BubblewrapSandboxSession)
        if await asyncio.to_thread(self.store.get, state.sandbox_id) is not None:
            await inner.launch()
            inner._set_start_state_preserved(True)
        return session

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """End a sandbox's processes and remove its workspace, if it exists."""
        inner = session._inner
        if not isinstance(inner, BubblewrapSandboxSession):
            raise TypeError(f"not a session of this client: {type(inner).__name__}")
        await inner.pty_terminate_all()
        await self.remove(inner.state.sandbox_id)
        return session

    async def remove(self, sandbox_id: str) -> None:
        """End the processes of a sandbox and remove it, if it exists.

        Raises:
            OSError: It could not be removed completely.
        """
        await asyncio.to_thread(_remove, self.store, sandbox_id)

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        return self._deserialize_session_state_payload(payload, BubblewrapSandboxSessionState)

    def _opened(self, state: BubblewrapSandboxSessionState) -> SandboxSession:
        inner = BubblewrapSandboxSession(store=self.store, state=state, make=self._made)
        return self._wrap_session(inner, instrumentation=self._instrumentation)

    async def _made(self, root: str, options: BubblewrapSandboxClientOptions) -> Made:
        """Create and start a sandbox; if it does not start, nothing of it is left."""
        # A thread cannot be interrupted: if cancelled, its sandbox is removed when it is done.
        making = asyncio.ensure_future(asyncio.to_thread(self._make, root, options))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            await asyncio.wait({making})
            if making.exception() is None:
                await self.remove(making.result().sandbox.id)
            raise

    def _make(self, root: str, options: BubblewrapSandboxClientOptions) -> Made:
        store = self.store
        sandbox = store.make(self._labels)
        try:
            launching = launch.Launch(sandbox=sandbox, root=root, options=options)
            return Made(sandbox=sandbox, limits=dict(launching.ensure_running() or {}))
        except BaseException:
            _remove(store, sandbox.id)
            raise


def _remove(store: Store, sandbox_id: str) -> None:
    sandbox = store.get(sandbox_id)
    if sandbox is None:
        return
    try:
        with sandbox.locked():
            launch.stop(sandbox)
            store.remove(sandbox)
    except FileNotFoundError:
        if sandbox.exists():
            raise


def _check(manifest: Manifest) -> None:
    launch.check_root(manifest.root)
    for grant in manifest.extra_path_grants:
        if grant.host_path is not None:
            raise refusal(
                f"a bubblewrap sandbox does not show host_path for {grant.path!r}: name read-only "
                f"paths of the host in SANDBOX_BUBBLEWRAP_READ_ONLY on the worker",
                "start",
                path=grant.path,
            )
