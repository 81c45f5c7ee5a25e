"""Provider `e2b`: sandboxes at E2B (https://e2b.dev).

E2B's own SDK reads credentials on the worker, from ``E2B_API_KEY`` and, for other deployments than
the public one, ``E2B_DOMAIN``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agents.extensions.sandbox.e2b import E2BSandboxClientOptions, E2BSandboxSessionState
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import LabelledSandbox, SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from sandbox_e2b.client import StrictE2BSandboxClient

__version__ = "0.1.0"


class E2BProvider(SandboxClientProvider[E2BSandboxClientOptions]):
    """Sandboxes at E2B, through the SDK's `E2BSandboxClient`.

    Labels cannot be changed, because E2B's metadata is fixed when a sandbox is created.
    """

    name = "e2b"
    summary = "Cloud sandboxes at E2B"
    api_version = 1
    options_type = E2BSandboxClientOptions

    def create_client(self) -> StrictE2BSandboxClient:
        """Return the SDK's client; E2B's SDK reads the worker's environment.

        Raises:
            RuntimeError: ``E2B_API_KEY`` is not set.
        """
        if not os.environ.get("E2B_API_KEY"):
            raise RuntimeError(
                "E2B_API_KEY is not set: make a key at https://e2b.dev/dashboard?tab=keys and put "
                "it into the worker's environment"
            )
        from sandbox_e2b.client import StrictE2BSandboxClient

        return StrictE2BSandboxClient()

    def default_options(self) -> E2BSandboxClientOptions:
        """Return options for E2B's default template."""
        return E2BSandboxClientOptions(sandbox_type="e2b")

    def identity(self, state: SandboxSessionState) -> str:
        """Return E2B's id of the sandbox.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        if not isinstance(state, E2BSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not E2B's")
        return state.sandbox_id

    async def exists(self, client: StrictE2BSandboxClient, sandbox_id: str) -> bool:
        """Return whether E2B has the sandbox, running or paused."""
        from sandbox_e2b.client import exists

        return await exists(sandbox_id)

    async def destroy(self, client: StrictE2BSandboxClient, sandbox_id: str) -> None:
        """Kill the sandbox."""
        from sandbox_e2b.client import kill

        await kill(sandbox_id)

    def labelled(
        self, client: StrictE2BSandboxClient, labels: Mapping[str, str]
    ) -> StrictE2BSandboxClient:
        """Return a client whose sandboxes have these labels in their metadata."""
        return client.labelled(labels)

    async def find(
        self, client: StrictE2BSandboxClient, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return the team's sandboxes with all of these labels, running or paused."""
        from sandbox_e2b.client import find

        return await find(labels)

    async def check(self, client: StrictE2BSandboxClient) -> None:
        """Check that E2B answers and accepts the key."""
        from sandbox_e2b.client import check

        await check()


@hookimpl
def sandbox_client_provider() -> E2BProvider:
    """Return the provider."""
    return E2BProvider()
