"""Provider `local`: a directory and processes of the worker's own host.

Nothing confines the commands on Linux; see `agents.sandbox.sandboxes.unix_local`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import SandboxClientProvider, hookimpl

__version__ = "0.1.0"

# Where the SDK's client makes the directories that it owns, and may therefore delete.
_OWNED_PREFIX = "sandbox-local-"


class LocalProvider(SandboxClientProvider[UnixLocalSandboxClientOptions]):
    """Sandboxes are directories on the worker's host, and their commands its processes."""

    name = "local"
    summary = "Directories and processes of the worker's host, unconfined"
    api_version = 1
    options_type = UnixLocalSandboxClientOptions
    host_bound = True

    def create_client(self) -> UnixLocalSandboxClient:
        """Return the SDK's client; commands get none of the worker's own environment's secrets."""
        return UnixLocalSandboxClient(inherit_host_environment=False)

    def identity(self, state: SandboxSessionState) -> str:
        """Return the workspace's directory."""
        return state.manifest.root

    async def exists(self, client: UnixLocalSandboxClient, sandbox_id: str) -> bool:
        """Return whether the directory is there."""
        return await asyncio.to_thread(Path(sandbox_id).is_dir)

    async def destroy(self, client: UnixLocalSandboxClient, sandbox_id: str) -> None:
        """Delete a directory that the SDK's client has made; one of the user's own stays.

        Raises:
            InvalidRequest: The path is not absolute.
        """
        from sandbox_core.worker.processes import forget_on_host  # Only where activities run.

        path = Path(sandbox_id)
        if not path.is_absolute():
            raise InvalidRequest(f"{sandbox_id!r} is not the directory of a local sandbox")
        await forget_on_host(sandbox_id)
        if path.name.startswith(_OWNED_PREFIX) and path.parent == Path(tempfile.gettempdir()):
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def check(self, client: UnixLocalSandboxClient) -> None:
        """Return if a workspace can be made in the temporary directory."""
        with tempfile.TemporaryDirectory(prefix=_OWNED_PREFIX):
            return


@hookimpl
def sandbox_client_provider() -> LocalProvider:
    """Return the provider."""
    return LocalProvider()
