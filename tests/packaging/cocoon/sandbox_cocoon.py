"""Provider `cocoon`: the client of `cocoonstack-sandbox-openai` from PyPI, unchanged."""

from __future__ import annotations

import asyncio
import os

from cocoonsandbox import Client
from cocoonsandbox_openai import CocoonSandboxClient, CocoonSandboxClientOptions

from sandbox_core.providers import SandboxClientProvider, client_provider, hookimpl


def _node() -> str:
    return os.environ.get("COCOON_ADDR", "127.0.0.1:7777")


async def _exists(_: CocoonSandboxClient, sandbox_id: str) -> bool:
    listed = await asyncio.to_thread(Client(_node()).sandboxes)
    return sandbox_id in {sandbox["id"] for sandbox in listed}


async def _check(_: CocoonSandboxClient) -> None:
    await asyncio.to_thread(Client(_node()).info)


@hookimpl
def sandbox_client_provider() -> SandboxClientProvider[CocoonSandboxClientOptions]:
    """Return the provider, which one call makes of the client."""
    return client_provider(
        "cocoon",
        CocoonSandboxClient,
        CocoonSandboxClientOptions,
        default_options=lambda: CocoonSandboxClientOptions(addr=_node()),
        identity="sandbox_id",
        exists=_exists,
        check=_check,
    )
