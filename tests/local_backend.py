"""The real local backend, for tests that change it, loaded like a worker loads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from support import installed_provider

from sandbox_core.providers import LabelledSandbox, SandboxClientProvider

if TYPE_CHECKING:  # What the contract says of it: a type checker cannot find it.

    class LocalClient(UnixLocalSandboxClient):
        def labelled(self, labels: Mapping[str, str]) -> LocalClient:
            raise NotImplementedError

    class LocalProvider(SandboxClientProvider[UnixLocalSandboxClientOptions]):
        def create_client(self) -> LocalClient:
            raise NotImplementedError

        def identity(self, state: SandboxSessionState) -> str:
            raise NotImplementedError

        async def exists(self, client: UnixLocalSandboxClient, sandbox_id: str) -> bool:
            raise NotImplementedError

        async def destroy(self, client: UnixLocalSandboxClient, sandbox_id: str) -> None:
            raise NotImplementedError

        def labelled(self, client: LocalClient, labels: Mapping[str, str]) -> LocalClient:
            raise NotImplementedError

        async def find(
            self, client: UnixLocalSandboxClient, labels: Mapping[str, str]
        ) -> Sequence[LabelledSandbox]:
            raise NotImplementedError

        async def relabel(
            self, client: UnixLocalSandboxClient, sandbox_id: str, labels: Mapping[str, str]
        ) -> None:
            raise NotImplementedError

        async def check(self, client: UnixLocalSandboxClient) -> None:
            raise NotImplementedError

else:
    LocalProvider = type(installed_provider("local"))
    LocalClient = type(LocalProvider().create_client())
