"""Provider `bubblewrap`: Linux namespaces on the worker's host, without a daemon.

Importing this module registers the options and the state with the SDK. `create_client` imports the
code that requires Linux.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_bubblewrap.models import (
    BubblewrapSandboxClientOptions,
    BubblewrapSandboxSessionState,
)
from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import LabelledSandbox, SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from sandbox_bubblewrap.client import BubblewrapSandboxClient

__all__ = [
    "BubblewrapProvider",
    "BubblewrapSandboxClientOptions",
    "BubblewrapSandboxSessionState",
    "sandbox_client_provider",
]

__version__ = "0.1.0"


class BubblewrapProvider(SandboxClientProvider[BubblewrapSandboxClientOptions]):
    """Sandboxes are processes in their own namespaces on the worker's host."""

    name = "bubblewrap"
    summary = "Isolated processes of the worker's host, by bubblewrap"
    api_version = 1
    options_type = BubblewrapSandboxClientOptions
    host_bound = True

    def create_client(self) -> BubblewrapSandboxClient:
        """Return the client.

        Raises:
            BubblewrapUnusable: There is no ``bwrap`` on this host.
        """
        from sandbox_bubblewrap.bwrap import find
        from sandbox_bubblewrap.client import BubblewrapSandboxClient

        find()
        return BubblewrapSandboxClient()

    def identity(self, state: SandboxSessionState) -> str:
        """Return the sandbox's id.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        if not isinstance(state, BubblewrapSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not bubblewrap's")
        return state.sandbox_id

    async def exists(self, client: BubblewrapSandboxClient, sandbox_id: str) -> bool:
        """Return whether the sandbox exists on this host, running or not."""
        return await asyncio.to_thread(client.store.get, sandbox_id) is not None

    async def destroy(self, client: BubblewrapSandboxClient, sandbox_id: str) -> None:
        """End the sandbox's processes, and remove its workspace.

        Raises:
            OSError: It could not be removed completely.
        """
        await client.remove(sandbox_id)

    def labelled(
        self, client: BubblewrapSandboxClient, labels: Mapping[str, str]
    ) -> BubblewrapSandboxClient:
        """Return a client whose sandboxes have these labels."""
        return client.labelled(labels)

    async def find(
        self, client: BubblewrapSandboxClient, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return the sandboxes of this host and user that have all of these labels."""
        return await asyncio.to_thread(client.store.find, labels)

    async def relabel(
        self, client: BubblewrapSandboxClient, sandbox_id: str, labels: Mapping[str, str]
    ) -> None:
        """Set labels of a sandbox.

        Raises:
            FileNotFoundError: It does not exist.
        """
        await asyncio.to_thread(client.store.relabel, sandbox_id, labels)

    async def check(self, client: BubblewrapSandboxClient) -> None:
        """Check that sandboxes work here, by starting and removing one.

        Raises:
            BubblewrapUnusable: There is no usable ``bwrap``.
            SandboxDidNotStart: The kernel does not permit it; the message says how to change that.
            StoreUnsafe: The folder for sandboxes cannot be used.
        """
        await client.delete(await client.create())


@hookimpl
def sandbox_client_provider() -> BubblewrapProvider:
    """Return the provider."""
    return BubblewrapProvider()
