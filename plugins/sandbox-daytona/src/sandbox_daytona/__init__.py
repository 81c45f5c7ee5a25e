"""Provider `daytona`: sandboxes at Daytona (https://www.daytona.io).

Credentials are read on the worker by Daytona's own SDK, from ``DAYTONA_API_KEY`` and, for another
deployment than the public one, ``DAYTONA_API_URL`` and ``DAYTONA_TARGET``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.extensions.sandbox.daytona import DaytonaSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from agents.extensions.sandbox.daytona import DaytonaSandboxClient
    from daytona import AsyncSandbox

__version__ = "0.1.0"


class DaytonaProvider(SandboxClientProvider[DaytonaSandboxClientOptions]):
    """Sandboxes at Daytona, through the SDK's `DaytonaSandboxClient`."""

    name = "daytona"
    summary = "Cloud sandboxes at Daytona"
    api_version = 1
    options_type = DaytonaSandboxClientOptions

    def create_client(self) -> DaytonaSandboxClient:
        """Return the SDK's client with the credentials of the worker's environment.

        Raises:
            DaytonaError: There are none.
        """
        from agents.extensions.sandbox.daytona import DaytonaSandboxClient

        return DaytonaSandboxClient()

    def identity(self, state: SandboxSessionState) -> str:
        """Return Daytona's id of the sandbox.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        from agents.extensions.sandbox.daytona import DaytonaSandboxSessionState

        if not isinstance(state, DaytonaSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not Daytona's")
        return state.sandbox_id

    async def exists(self, client: DaytonaSandboxClient, sandbox_id: str) -> bool:
        """Return whether Daytona knows the sandbox, and is not about to delete it."""
        return await self._find(client, sandbox_id) is not None

    async def destroy(self, client: DaytonaSandboxClient, sandbox_id: str) -> None:
        """Delete the sandbox."""
        sandbox = await self._find(client, sandbox_id)
        if sandbox is not None:
            await sandbox.delete()

    async def check(self, client: DaytonaSandboxClient) -> None:
        """Return if Daytona answers and accepts the key."""
        async for _ in client._daytona.list():
            break

    async def _find(self, client: DaytonaSandboxClient, sandbox_id: str) -> AsyncSandbox | None:
        from daytona import DaytonaNotFoundError, SandboxState

        try:
            sandbox = await client._daytona.get(sandbox_id)
        except DaytonaNotFoundError:
            return None
        gone = (SandboxState.DESTROYED, SandboxState.DESTROYING)
        return None if sandbox.state in gone else sandbox


@hookimpl
def sandbox_client_provider() -> DaytonaProvider:
    """Return the provider."""
    return DaytonaProvider()
