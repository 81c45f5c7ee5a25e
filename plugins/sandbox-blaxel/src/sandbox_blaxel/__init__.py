"""Provider `blaxel`: sandboxes at Blaxel (https://blaxel.ai).

Blaxel's own SDK reads credentials on the worker, from ``BL_API_KEY`` and ``BL_WORKSPACE``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agents.extensions.sandbox.blaxel import BlaxelSandboxSessionState
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_blaxel.options import BlaxelOptions
from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import LabelledSandbox, SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from sandbox_blaxel.client import LabellingBlaxelSandboxClient

__all__ = ["BlaxelOptions", "BlaxelProvider", "sandbox_client_provider"]
__version__ = "0.1.0"


class BlaxelProvider(SandboxClientProvider[BlaxelOptions]):
    """Sandboxes at Blaxel, through the SDK's `BlaxelSandboxClient`."""

    name = "blaxel"
    summary = "Cloud sandboxes at Blaxel"
    api_version = 1
    options_type = BlaxelOptions

    # The SDK's client is typed for its own class of options; ours takes that and `BlaxelOptions`.
    def create_client(self) -> LabellingBlaxelSandboxClient:  # type: ignore[override]
        """Return the SDK's client; Blaxel's SDK reads the worker's environment.

        Raises:
            RuntimeError: ``BL_API_KEY`` or ``BL_WORKSPACE`` is not set.
        """
        for name in ("BL_API_KEY", "BL_WORKSPACE"):
            if not os.environ.get(name):
                raise RuntimeError(
                    f"{name} is not set: make a key at https://app.blaxel.ai, and put it and the "
                    f"workspace's name into BL_API_KEY and BL_WORKSPACE in the worker's environment"
                )
        from sandbox_blaxel.client import LabellingBlaxelSandboxClient

        return LabellingBlaxelSandboxClient()

    def identity(self, state: SandboxSessionState) -> str:
        """Return the sandbox's name, which identifies it at Blaxel.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        if not isinstance(state, BlaxelSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not Blaxel's")
        return state.sandbox_name

    async def exists(self, client: LabellingBlaxelSandboxClient, sandbox_id: str) -> bool:
        """Return whether Blaxel has the sandbox and is not deleting it."""
        from sandbox_blaxel.client import get

        return await get(sandbox_id) is not None

    async def destroy(self, client: LabellingBlaxelSandboxClient, sandbox_id: str) -> None:
        """Delete the sandbox."""
        from sandbox_blaxel.client import delete

        await delete(sandbox_id)

    def labelled(
        self, client: LabellingBlaxelSandboxClient, labels: Mapping[str, str]
    ) -> LabellingBlaxelSandboxClient:
        """Return a client whose sandboxes have these labels."""
        return client.labelled(labels)

    async def find(
        self, client: LabellingBlaxelSandboxClient, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return the workspace's sandboxes with all of these labels, running or in standby."""
        from sandbox_blaxel.client import find

        return await find(labels)

    async def relabel(
        self, client: LabellingBlaxelSandboxClient, sandbox_id: str, labels: Mapping[str, str]
    ) -> None:
        """Set labels of a sandbox. Blaxel's SDK reads the others first and sends all.

        Raises:
            SandboxAPIError: Blaxel does not know the sandbox.
        """
        from sandbox_blaxel.client import relabel

        await relabel(sandbox_id, labels)

    async def check(self, client: LabellingBlaxelSandboxClient) -> None:
        """Check that Blaxel answers and accepts the key."""
        from sandbox_blaxel.client import check

        await check()


@hookimpl
def sandbox_client_provider() -> BlaxelProvider:
    """Return the provider."""
    return BlaxelProvider()
