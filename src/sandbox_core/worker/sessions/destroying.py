"""Deletes a sandbox by its id, with the processes that it leaves on the worker's host."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from sandbox_core.providers import SupportsDestroy, SupportsHostProcesses
from sandbox_core.worker.commands.host import states_on_host, stop_on_host

_ClientT = TypeVar("_ClientT")


async def destroy(provider: SupportsDestroy[_ClientT], client: _ClientT, sandbox_id: str) -> None:
    """Delete the sandbox with this `identity`; one that does not exist is no error.

    Raises:
        Exception: The backend did not delete it.
    """
    if isinstance(provider, SupportsHostProcesses):
        # Its identity is the workspace's directory, and nothing ends with a directory.
        await stop_on_host(await asyncio.to_thread(states_on_host, sandbox_id))
    await provider.destroy(client, sandbox_id)
