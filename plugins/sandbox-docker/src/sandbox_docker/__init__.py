"""Provider `docker`: containers of a Docker engine.

On the worker, ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` determine the engine,
by default the local one. ``SANDBOX_DOCKER_IMAGE`` is the image of sessions without options, and
``SANDBOX_DOCKER_NETWORK=none`` refuses sessions whose containers would have a network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

# The SDK defines the options in its client's module. So this imports `docker` even on a worker that
# only runs workflows, but connects to no engine before `create_client`.
from agents.sandbox.sandboxes import docker as sdk
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import (
    LabelledSandbox,
    ProcessStream,
    SandboxClientProvider,
    hookimpl,
)
from sandbox_docker.options import DockerSandboxClientOptions, DockerSandboxSessionState

if TYPE_CHECKING:
    from sandbox_docker.client import ThreadedDockerSandboxClient

__all__ = [
    "DockerProvider",
    "DockerSandboxClientOptions",
    "DockerSandboxSessionState",
    "sandbox_client_provider",
]

__version__ = "0.1.0"

IMAGE_VARIABLE = "SANDBOX_DOCKER_IMAGE"
NETWORK_VARIABLE = "SANDBOX_DOCKER_NETWORK"

_LOCAL_ENGINE = "unix:///var/run/docker.sock"
_LOCAL_SCHEMES = ("unix://", "http+unix://", "npipe://")


class DockerProvider(SandboxClientProvider[sdk.DockerSandboxClientOptions]):
    """Sandboxes are containers, through the SDK's `DockerSandboxClient`."""

    name = "docker"
    summary = "Containers of a Docker engine"
    api_version = 1
    # This package's options are a subclass.
    options_type = sdk.DockerSandboxClientOptions

    def __init__(self) -> None:
        self._engine = os.environ.get("DOCKER_HOST") or _LOCAL_ENGINE
        # Workers on several hosts can share an engine that they reach over the network.
        self.host_bound = self._engine.startswith(_LOCAL_SCHEMES)

    def create_client(self) -> ThreadedDockerSandboxClient:
        """Return a client of the engine named by the worker's environment.

        Raises:
            EngineUnreachable: The engine does not answer, or refuses.
            ValueError: ``SANDBOX_DOCKER_NETWORK`` is not ``none``.
        """
        network = os.environ.get(NETWORK_VARIABLE) or None
        if network not in (None, "none"):
            raise ValueError(
                f"{NETWORK_VARIABLE} is {network!r}: set it to 'none', so that no container has a "
                f"network, or unset it, so that the options decide"
            )
        from sandbox_docker.client import ThreadedDockerSandboxClient
        from sandbox_docker.engine import connect

        client = ThreadedDockerSandboxClient(connect(self._engine))
        client.networks_allowed = network is None
        return client

    def default_options(self) -> sdk.DockerSandboxClientOptions:
        """Return options with the image named by ``SANDBOX_DOCKER_IMAGE``, and without a network.

        Raises:
            ValueError: The variable is not set.
        """
        image = os.environ.get(IMAGE_VARIABLE)
        if not image:
            raise ValueError(f"no image is named, and {IMAGE_VARIABLE} is not set on the worker")
        return sdk.DockerSandboxClientOptions(image=image, network_mode="none")

    def identity(self, state: SandboxSessionState) -> str:
        """Return the container's id.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        if not isinstance(state, sdk.DockerSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not Docker's")
        return state.container_id

    async def exists(self, client: ThreadedDockerSandboxClient, sandbox_id: str) -> bool:
        """Return whether the engine has the container, running or not."""
        return await client.has_container(sandbox_id)

    async def destroy(self, client: ThreadedDockerSandboxClient, sandbox_id: str) -> None:
        """Remove the container and its session's volumes."""
        await client.remove_container(sandbox_id)

    def labelled(
        self, client: ThreadedDockerSandboxClient, labels: Mapping[str, str]
    ) -> ThreadedDockerSandboxClient:
        """Return a client whose containers have these labels, beside those of the options."""
        return client.labelled(labels)

    async def find(
        self, client: ThreadedDockerSandboxClient, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return the engine's containers with all of these labels, running or not."""
        return await client.find_containers(labels)

    async def relabel(
        self, client: ThreadedDockerSandboxClient, sandbox_id: str, labels: Mapping[str, str]
    ) -> None:
        """Set labels of a container; the engine also keeps its original ones.

        Raises:
            NotFound: The engine does not have the container.
        """
        await client.relabel_container(sandbox_id, labels)

    async def open_stream(
        self, session: BaseSandboxSession, command: Sequence[str], *, user: str | None
    ) -> ProcessStream:
        """Start a process in the container, and connect to its stdin and stdout.

        Raises:
            NotImplementedError: The engine is reached by TLS or SSH.
            ExecTransportError: The engine refuses, or does not answer.
        """
        from sandbox_docker.session import ThreadedDockerSandboxSession

        if not isinstance(session, ThreadedDockerSandboxSession):
            raise NotImplementedError(f"a session of type {type(session).__name__}")
        return await session.open_stream(command, user)

    async def check(self, client: ThreadedDockerSandboxClient) -> None:
        """Check that the engine answers."""
        await client.check_engine()


@hookimpl
def sandbox_client_provider() -> DockerProvider:
    """Return the provider."""
    return DockerProvider()
