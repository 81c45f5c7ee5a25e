"""Provider `acme-echo`: each sandbox is a directory below ``$ACME_ECHO_HOME``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from agents.sandbox.session import SandboxSessionState

from acme_sandbox_echo.models import EchoSandboxClientOptions, EchoSandboxSessionState
from sandbox_core.providers import SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from acme_sandbox_echo.client import EchoSandboxClient

__all__ = ["EchoProvider", "EchoSandboxClientOptions", "EchoSandboxSessionState"]


class EchoProvider(SandboxClientProvider[EchoSandboxClientOptions]):
    """Sandboxes at Acme Echo."""

    name = "acme-echo"
    summary = "Directories of Acme Echo"
    api_version = 1
    options_type = EchoSandboxClientOptions
    host_bound = True

    def create_client(self) -> EchoSandboxClient:
        """Return the client for the home that this worker's environment names."""
        from acme_sandbox_echo.client import EchoSandboxClient

        return EchoSandboxClient(home=Path(os.environ.get("ACME_ECHO_HOME", tempfile.gettempdir())))

    def identity(self, state: SandboxSessionState) -> str:
        """Return the sandbox's id; with `exists`, a resume notices that it is gone."""
        assert isinstance(state, EchoSandboxSessionState)
        return state.sandbox_id

    async def exists(self, client: EchoSandboxClient, sandbox_id: str) -> bool:
        """Return whether the sandbox's directory is there."""
        return client.directory(sandbox_id).is_dir()


@hookimpl
def sandbox_client_provider() -> EchoProvider:
    """Return the provider."""
    return EchoProvider()
