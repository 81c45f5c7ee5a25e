"""Adapts the SDK's Docker client to a worker.

A worker serves many sessions in one event loop, which must not wait for an engine. But docker-py
blocks, and the SDK often calls it in the event loop. A comment at each difference from the SDK's
class gives the reason.
"""

from __future__ import annotations

import asyncio
import copy
import re
import uuid
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Literal

from agents.sandbox import Manifest
from agents.sandbox._mount_security import redact_mount_error_data
from agents.sandbox.sandboxes.docker import (
    DockerSandboxClient,
    DockerSandboxClientOptions,
    DockerSandboxSession,
    DockerSandboxSessionState,
    _docker_volume_names_for_manifest,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from sandbox_core.errors import InvalidOptions
from sandbox_core.providers import LabelledSandbox, LabellingClient
from sandbox_docker import labels as container_labels
from sandbox_docker.engine import in_other_loop, in_thread
from sandbox_docker.options import ContainerSettings, settings_of
from sandbox_docker.options import DockerSandboxSessionState as RestrictedState
from sandbox_docker.session import ThreadedDockerSandboxSession

# The SDK's names for a session's volumes: the session's id, a hash of the path, and the path.
_SESSION_VOLUME: Final = re.compile(r"sandbox_[0-9a-f]{32}_[0-9a-f]{12}_")


class ThreadedDockerSandboxClient(LabellingClient, DockerSandboxClient):
    """The SDK's client, but it calls the engine in threads."""

    networks_allowed: bool = True
    """Whether containers may have a network, if the options say so; set by the provider."""

    _settings: ContainerSettings | None = None

    def close(self) -> None:
        """Close the connections to the engine."""
        self.docker_client.close()

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: DockerSandboxClientOptions,
    ) -> SandboxSession:
        """Create a container, pulling its image if the engine does not have it.

        Raises:
            InvalidOptions: The options name no image, or the worker allows no network.
        """
        if not options.image.strip():
            raise InvalidOptions("image is empty: name one, for example 'python:3.12-slim'")
        root = (manifest or Manifest()).root
        client = self._restricting(settings_of(options), root)
        made = DockerSandboxClient.create(
            client, snapshot=snapshot, manifest=manifest, options=options
        )
        return await self._open(made, known=None)

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Open the container of `state`, or create a new one if it is gone."""
        known = state.container_id if isinstance(state, DockerSandboxSessionState) else None
        client = self._restricting(settings_of(state), state.manifest.root)
        return await self._open(DockerSandboxClient.resume(client, state), known=known)

    def _restricting(
        self, settings: ContainerSettings | None, root: str
    ) -> ThreadedDockerSandboxClient:
        if settings is None:
            return self
        made = copy.copy(self)
        made._settings = settings
        made.docker_client = copy.copy(self.docker_client)
        made.docker_client.arguments = settings.engine_arguments(root)
        return made

    async def _open(
        self, opening: Coroutine[Any, Any, SandboxSession], *, known: str | None
    ) -> SandboxSession:
        # The SDK's blocks the event loop, for minutes if an image must be pulled.
        task = asyncio.ensure_future(in_other_loop(opening))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # docker-py cannot be interrupted, and its container would leak.
            await asyncio.wait({task})
            if task.exception() is None and _container_id(task.result()) != known:
                await self.delete(task.result())
            raise

    def _wrap_session(
        self, inner: BaseSandboxSession, *, instrumentation: Instrumentation | None = None
    ) -> SandboxSession:
        # The SDK's `create` and `resume` return sessions of its own class.
        if isinstance(inner, DockerSandboxSession):
            if self._settings is not None and settings_of(inner.state) is None:
                inner.state = RestrictedState.of(inner.state, self._settings)
            inner = ThreadedDockerSandboxSession.taking_over(inner)
        return super()._wrap_session(inner, instrumentation=instrumentation)

    async def _create_container(
        self,
        image: str,
        *,
        manifest: Manifest | None = None,
        exposed_ports: tuple[int, ...] = (),
        network_mode: Literal["none"] | None = None,
        session_id: uuid.UUID | None = None,
        labels: dict[str, str] | None = None,
    ) -> Container:
        if network_mode is None and not self.networks_allowed:
            raise InvalidOptions(
                "SANDBOX_DOCKER_NETWORK=none on this worker: no container has a network. Pass "
                "options with network_mode='none'"
            )
        return await super()._create_container(
            image,
            manifest=manifest,
            exposed_ports=exposed_ports,
            network_mode=network_mode,
            session_id=session_id,
            labels={**(labels or {}), **self._labels},
        )

    def _cleanup_failed_create_resources(
        self, *, container: Container | None, volume_names: Iterable[str]
    ) -> None:
        # The SDK leaves anonymous volumes behind.
        with suppress(APIError):
            self._remove(container.id if container is not None else "", volume_names)

    @redact_mount_error_data
    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Remove the session's container and volumes."""
        inner = session._inner
        if not isinstance(inner, DockerSandboxSession):
            raise TypeError(f"not a session of this client: {type(inner).__name__}")
        volumes = _docker_volume_names_for_manifest(
            inner.state.manifest, session_id=inner.state.session_id
        )
        try:
            await inner.shutdown()
        finally:
            await self.remove_container(inner.state.container_id, volumes)
        return session

    async def has_container(self, container_id: str) -> bool:
        """Return whether the engine has the container and is not removing it."""
        container = await in_thread(self._find, container_id)
        return container is not None and container.status not in ("removing", "dead")

    async def remove_container(self, container_id: str, volumes: Iterable[str] = ()) -> None:
        """Remove a container, its anonymous volumes and its session's, if they exist."""
        await in_thread(self._remove, container_id, volumes)

    async def find_containers(self, labels: Mapping[str, str]) -> list[LabelledSandbox]:
        """Return the containers with all of these labels, running or not."""
        return await in_thread(container_labels.find, self.docker_client, labels)

    async def relabel_container(self, container_id: str, labels: Mapping[str, str]) -> None:
        """Set labels of an existing container; the others stay.

        Raises:
            NotFound: The container does not exist.
        """
        await in_thread(container_labels.relabel, self.docker_client, container_id, labels)

    async def check_engine(self) -> None:
        """Check that the engine answers.

        Raises:
            DockerException: The engine refuses.
            OSError: The engine does not answer.
        """
        await in_thread(self.docker_client.ping)
        await in_thread(self.docker_client.version)

    def _find(self, container_id: str) -> Container | None:
        # The SDK clears the id in a state whose container must not be used again.
        return self.get_container(container_id) if container_id else None

    def _remove(self, container_id: str, volumes: Iterable[str]) -> None:
        names = set(volumes)
        if container_id:
            names |= container_labels.volumes_of(self.docker_client, container_id)
        container = self._find(container_id)
        if container is not None:
            mounted = (mount.get("Name") or "" for mount in container.attrs["Mounts"])
            names.update(name for name in mounted if _SESSION_VOLUME.match(name))
            with suppress(NotFound):
                container.remove(force=True, v=True)
        container_labels.remove_volumes(self.docker_client, names)


def _container_id(session: SandboxSession) -> str | None:
    state = session.state
    return state.container_id if isinstance(state, DockerSandboxSessionState) else None
