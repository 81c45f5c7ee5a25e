"""Deletes a sandbox by its id, with its processes on the worker's host."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from sandbox_core.providers import SupportsDestroy, SupportsHostProcesses
from sandbox_core.worker.commands.host import states_on_host, stop_on_host

_ClientT = TypeVar("_ClientT")


async def destroy(provider: SupportsDestroy[_ClientT], client: _ClientT, sandbox_id: str) -> None:
    """Delete the sandbox with this `identity`, if it exists.

    Raises:
        Exception: The backend did not delete it.
    """
    if isinstance(provider, SupportsHostProcesses):
        # The identity is the workspace's directory, and deleting that ends no process.
        await stop_on_host(await asyncio.to_thread(states_on_host, sandbox_id))
    await provider.destroy(client, sandbox_id)
