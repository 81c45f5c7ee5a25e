"""The core's promises with containers of a real engine, whose workers are killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest
from docker_engine import DockerEngine
from faults.promises import Backend
from faults.repeats import RepeatPromises
from faults.sharing_promises import SharingPromises

from sandbox_docker import sandbox_client_provider
from sandbox_docker.client import ThreadedDockerSandboxClient

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")


class Docker(Backend):
    """Containers, asked about at the engine."""

    def __init__(self, engine: DockerEngine, client: ThreadedDockerSandboxClient) -> None:
        super().__init__(sandbox_client_provider(), client)
        self._engine, self._containers = engine, engine.client.containers

    async def run(self, sandbox_id: str, script: str) -> str:
        container = await asyncio.to_thread(self._containers.get, sandbox_id)
        _, output = await asyncio.to_thread(container.exec_run, ["sh", "-c", script])
        return str(output, "utf-8")


@pytest.fixture
def backend(engine: DockerEngine) -> Iterator[Backend]:
    with closing(sandbox_client_provider().create_client()) as client:
        yield Docker(engine, client)


class TestSharing(SharingPromises):
    """A container."""


class TestRepeat(RepeatPromises):
    """In a container."""
