"""Provider `cloudflare`: sandboxes behind a bridge of Cloudflare's sandbox SDK.

The bridge (https://developers.cloudflare.com/sandbox/) is the user's own Cloudflare Worker. Its
address and key are read on the worker, from ``CLOUDFLARE_SANDBOX_WORKER_URL`` and
``CLOUDFLARE_SANDBOX_API_KEY``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agents.extensions.sandbox.cloudflare import (
    CloudflareSandboxClientOptions,
    CloudflareSandboxSessionState,
)
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from sandbox_cloudflare.client import StrictCloudflareSandboxClient

__version__ = "0.1.0"

URL = "CLOUDFLARE_SANDBOX_WORKER_URL"
API_KEY = "CLOUDFLARE_SANDBOX_API_KEY"


class CloudflareProvider(SandboxClientProvider[CloudflareSandboxClientOptions]):
    """Sandboxes at Cloudflare, through the SDK's `CloudflareSandboxClient`.

    It has no labels: a bridge stores only a sandbox's id, and cannot list its sandboxes.
    """

    name = "cloudflare"
    summary = "Cloud sandboxes at Cloudflare, behind a bridge of your own"
    api_version = 1
    options_type = CloudflareSandboxClientOptions

    def create_client(self) -> StrictCloudflareSandboxClient:
        """Return the SDK's client for the bridge named by the worker's environment.

        Raises:
            RuntimeError: The environment lacks the bridge's address or key.
        """
        for name in (URL, API_KEY):
            if not os.environ.get(name):
                raise RuntimeError(
                    f"{name} is not set: deploy a bridge as "
                    f"https://developers.cloudflare.com/sandbox/ says, and put its address and "
                    f"its SANDBOX_API_KEY into the worker's environment"
                )
        from sandbox_cloudflare.client import StrictCloudflareSandboxClient

        return StrictCloudflareSandboxClient(url=os.environ[URL], api_key=os.environ[API_KEY])

    def default_options(self) -> CloudflareSandboxClientOptions:
        """Return options for the bridge named by the worker's environment.

        Raises:
            ValueError: The environment names none.
        """
        if not os.environ.get(URL):
            raise ValueError(f"{URL} is not set")
        return CloudflareSandboxClientOptions(worker_url=os.environ[URL])

    def identity(self, state: SandboxSessionState) -> str:
        """Return the bridge's id of the sandbox.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        if not isinstance(state, CloudflareSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not Cloudflare's")
        return state.sandbox_id

    async def exists(self, client: StrictCloudflareSandboxClient, sandbox_id: str) -> bool:
        """Return whether the sandbox's container is running: one that slept has lost its files."""
        return await client.exists(sandbox_id)

    async def destroy(self, client: StrictCloudflareSandboxClient, sandbox_id: str) -> None:
        """Delete the sandbox's container."""
        await client.destroy(sandbox_id)

    async def check(self, client: StrictCloudflareSandboxClient) -> None:
        """Check that the bridge answers and accepts the key."""
        await client.check()


@hookimpl
def sandbox_client_provider() -> CloudflareProvider:
    """Return the provider."""
    return CloudflareProvider()
