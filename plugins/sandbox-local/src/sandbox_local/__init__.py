"""Provider `local`: directories and processes on the worker's own host.

On Linux nothing isolates the commands; see `agents.sandbox.sandboxes.unix_local`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
    UnixLocalSandboxSessionState,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import HostProcess, LabelledSandbox, SandboxClientProvider, hookimpl
from sandbox_local import records
from sandbox_local.client import LabellingLocalSandboxClient, LabellingLocalSandboxSession

__version__ = "0.1.0"


class LocalProvider(SandboxClientProvider[UnixLocalSandboxClientOptions]):
    """Sandboxes are directories on the worker's host, and their commands processes there."""

    name = "local"
    summary = "Directories and processes of the worker's host, unconfined"
    api_version = 1
    options_type = UnixLocalSandboxClientOptions
    host_bound = True

    def create_client(self) -> LabellingLocalSandboxClient:
        """Return the SDK's client. Commands get no secrets of the worker's environment."""
        return LabellingLocalSandboxClient(inherit_host_environment=False)

    def identity(self, state: SandboxSessionState) -> str:
        """Return the workspace's directory.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        if not isinstance(state, UnixLocalSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not a local sandbox's")
        return state.manifest.root

    async def exists(self, client: UnixLocalSandboxClient, sandbox_id: str) -> bool:
        """Return whether the directory exists."""
        return await asyncio.to_thread(Path(sandbox_id).is_dir)

    async def destroy(self, client: UnixLocalSandboxClient, sandbox_id: str) -> None:
        """Delete a directory that the SDK's client created; one of the user's own is kept.

        Raises:
            InvalidRequest: The path is not absolute.
            OSError: It could not be deleted completely.
        """
        path = Path(sandbox_id)
        if not path.is_absolute():
            raise InvalidRequest(f"{sandbox_id!r} is not the directory of a local sandbox")
        if records.is_made_for_sandbox(path):
            await asyncio.to_thread(_remove, path)
            await asyncio.to_thread(records.forget, path)

    def labelled(
        self, client: LabellingLocalSandboxClient, labels: Mapping[str, str]
    ) -> LabellingLocalSandboxClient:
        """Return a client whose directories have these labels; the user's own get none."""
        return client.labelled(labels)

    async def find(
        self, client: UnixLocalSandboxClient, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return the directories of this host and user that have all of these labels."""
        return await asyncio.to_thread(records.find, labels)

    async def relabel(
        self, client: UnixLocalSandboxClient, sandbox_id: str, labels: Mapping[str, str]
    ) -> None:
        """Set labels of a directory that was created for a sandbox; others have none."""
        await asyncio.to_thread(records.change, Path(sandbox_id), labels)

    async def host_process(
        self, session: BaseSandboxSession, command: Sequence[str]
    ) -> HostProcess:
        """Return the process that the SDK's `exec` would start for a command."""
        if not isinstance(session, LabellingLocalSandboxSession):
            raise TypeError(f"not a session of this provider: {type(session).__name__}")
        return await session.host_process(command)

    async def check(self, client: UnixLocalSandboxClient) -> None:
        """Check that a workspace can be created in the temporary directory."""
        with tempfile.TemporaryDirectory(prefix=records.PREFIX):
            return


def _remove(path: Path) -> None:
    # Another deletion may run concurrently: missing files are no error, but remaining ones are.
    with suppress(FileNotFoundError):
        shutil.rmtree(path)
    if path.exists():
        shutil.rmtree(path)


@hookimpl
def sandbox_client_provider() -> LocalProvider:
    """Return the provider."""
    return LocalProvider()
