"""Provider `vercel`: sandboxes at Vercel (https://vercel.com/docs/sandbox).

Vercel's own SDK reads credentials on the worker: ``VERCEL_TOKEN``, ``VERCEL_PROJECT_ID`` and
``VERCEL_TEAM_ID``, or ``VERCEL_OIDC_TOKEN`` alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agents.extensions.sandbox.vercel import VercelSandboxClientOptions, VercelSandboxSessionState
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from sandbox_vercel.client import StrictVercelSandboxClient

__version__ = "0.1.0"

_CREDENTIALS = ("VERCEL_TOKEN", "VERCEL_PROJECT_ID", "VERCEL_TEAM_ID")


class VercelProvider(SandboxClientProvider[VercelSandboxClientOptions]):
    """Sandboxes at Vercel, through the SDK's `VercelSandboxClient`.

    It has no labels: Vercel stores no user data with a sandbox.
    """

    name = "vercel"
    summary = "Cloud sandboxes at Vercel"
    api_version = 1
    options_type = VercelSandboxClientOptions

    def create_client(self) -> StrictVercelSandboxClient:
        """Return the SDK's client; Vercel's SDK reads the worker's environment.

        Raises:
            RuntimeError: The environment has no credentials.
        """
        missing = [name for name in _CREDENTIALS if not os.environ.get(name)]
        if missing and not os.environ.get("VERCEL_OIDC_TOKEN"):
            raise RuntimeError(
                f"{missing[0]} is not set: make a token at https://vercel.com/account/tokens, and "
                f"put {', '.join(_CREDENTIALS)} into the worker's environment, or "
                f"VERCEL_OIDC_TOKEN instead"
            )
        from sandbox_vercel.client import StrictVercelSandboxClient

        return StrictVercelSandboxClient()

    def identity(self, state: SandboxSessionState) -> str:
        """Return Vercel's id of the sandbox.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        if not isinstance(state, VercelSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not Vercel's")
        return state.sandbox_id

    async def exists(self, client: StrictVercelSandboxClient, sandbox_id: str) -> bool:
        """Return whether the sandbox is running: a stopped one is gone, with its files."""
        from sandbox_vercel.client import exists

        return await exists(sandbox_id)

    async def destroy(self, client: StrictVercelSandboxClient, sandbox_id: str) -> None:
        """Stop the sandbox, which deletes its files."""
        from sandbox_vercel.client import stop

        await stop(sandbox_id)

    async def check(self, client: StrictVercelSandboxClient) -> None:
        """Check that Vercel answers and accepts the credentials."""
        from sandbox_vercel.client import check

        await check()


@hookimpl
def sandbox_client_provider() -> VercelProvider:
    """Return the provider."""
    return VercelProvider()
