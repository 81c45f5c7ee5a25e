"""A session from its start to its shutdown; see `session`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from agents.sandbox.errors import (
    ExposedPortUnavailableError,
    WorkspaceStartError,
    WorkspaceStopError,
)
from agents.sandbox.materialization import MaterializationResult
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.types import ExposedPortEndpoint

from sandbox_bubblewrap import launch, system
from sandbox_bubblewrap.connection import DoesNotRun, NotRunning
from sandbox_bubblewrap.models import (
    BubblewrapSandboxClientOptions,
    BubblewrapSandboxSessionState,
    refusal,
)
from sandbox_bubblewrap.store import Sandbox, Store
from sandbox_bubblewrap.terminals import Terminals

logger = logging.getLogger(__name__)

_ResultT = TypeVar("_ResultT")


@dataclass(frozen=True, kw_only=True)
class Made:
    """A sandbox that was just created and started."""

    sandbox: Sandbox
    limits: dict[str, str]
    """What enforces each limit; see the session's state."""


class SessionBase(BaseSandboxSession):
    """The part of a session that keeps its sandbox running."""

    state: BubblewrapSandboxSessionState

    def __init__(
        self,
        *,
        store: Store,
        state: BubblewrapSandboxSessionState,
        make: Callable[[str, BubblewrapSandboxClientOptions], Awaitable[Made]],
    ) -> None:
        self.state = state
        self._store, self._make = store, make
        self._terminals = Terminals()
        self._shut_down = False

    @property
    def _sandbox(self) -> Sandbox:
        return Sandbox(path=self._store.root / self.state.sandbox_id)

    async def _ensure_backend_started(self) -> None:
        if await asyncio.to_thread(self._store.get, self.state.sandbox_id) is not None:
            await self.launch()
            return
        made = await self._make(self.state.manifest.root, self.state.options)
        self.state.sandbox_id, self.state.limits = made.sandbox.id, made.limits
        self.state.workspace_root_ready = False
        self._set_start_state_preserved(False)
        self._shut_down = False

    async def launch(self) -> None:
        """Start the sandbox unless it is running.

        Raises:
            FileNotFoundError: It no longer exists.
            Exception: It cannot be started; the message says why.
        """
        launching = launch.Launch(
            sandbox=self._sandbox, root=self.state.manifest.root, options=self.state.options
        )
        kept_by = await asyncio.to_thread(launching.ensure_running)
        self._shut_down = False
        if kept_by is not None:
            self.state.limits = dict(kept_by)

    def _wrap_start_error(self, error: Exception) -> Exception:
        if not isinstance(error, OSError):
            return error
        return WorkspaceStartError(path=self._workspace_root_path(), cause=error)

    def _wrap_stop_error(self, error: Exception) -> Exception:
        if not isinstance(error, OSError):
            return error
        return WorkspaceStopError(path=self._workspace_root_path(), cause=error)

    async def _in_running(self, ask: Callable[[], Coroutine[Any, Any, _ResultT]]) -> _ResultT:
        """Ask process 1; if the sandbox was stopped, for example by a reboot, start it first.

        The workspace and /tmp are unchanged, and the request has not been made yet.
        """
        try:
            return await ask()
        except DoesNotRun:
            if self._shut_down or not self._sandbox.exists():
                raise
        logger.warning("sandbox %s was no longer running and is started again", self._sandbox.id)
        try:
            await self.launch()
        except Exception as error:  # For any reason, the session has no running sandbox.
            raise NotRunning(f"{self._sandbox.id} cannot be started again: {error}") from error
        return await ask()

    async def _shutdown_backend(self) -> None:
        self._shut_down = True
        await asyncio.to_thread(launch.stop, self._sandbox)

    async def running(self) -> bool:
        return launch.is_running(self._sandbox)

    async def _apply_manifest(
        self, *, only_ephemeral: bool = False, provision_accounts: bool = True
    ) -> MaterializationResult:
        await self.provision_manifest_accounts()
        return await super()._apply_manifest(
            only_ephemeral=only_ephemeral, provision_accounts=provision_accounts
        )

    async def provision_manifest_accounts(self) -> None:
        if self.state.manifest.users or self.state.manifest.groups:
            raise refusal(
                f"a bubblewrap sandbox has one user, {system.USER_NAME!r}: leave users and groups "
                f"out of the manifest",
                "start",
            )

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        if self.state.options.network != "host":
            raise ExposedPortUnavailableError(
                port=port,
                exposed_ports=self.state.exposed_ports,
                reason="backend_unavailable",
                context={"detail": "the sandbox has no network; options with network='host' do"},
                retryable=False,
            )
        return ExposedPortEndpoint(host="127.0.0.1", port=port, tls=False)
