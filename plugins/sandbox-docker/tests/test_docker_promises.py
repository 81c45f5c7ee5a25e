"""The core's promises with containers of a real engine, whose workers are killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing

import pytest
from docker_engine import DockerEngine
from faults.promises import (
    Backend,
    CommandPromises,
    CreatePromises,
    DeletePromises,
    LostPromises,
    OrphanPromises,
    WorkspacePromises,
)
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

    async def commands(self, sandbox_id: str) -> list[str]:
        container = await asyncio.to_thread(self._containers.get, sandbox_id)
        top = await asyncio.to_thread(container.top, ps_args="-eo pid,args")
        shown = [args for _pid, args in top["Processes"]]
        # Beside the engine's own there is the helper, which calls itself that.
        own = ("docker-init", "tail -f", "sbx")
        return [args for args in shown if not any(name in args for name in own)]

    def stalled(self) -> AbstractContextManager[None]:
        return self._engine.halted()


@pytest.fixture
def backend(engine: DockerEngine) -> Iterator[Backend]:
    with closing(sandbox_client_provider().create_client()) as client:
        yield Docker(engine, client)


class TestCommand(CommandPromises):
    """In a container."""


class TestCreate(CreatePromises):
    """Of a container."""


class TestWorkspace(WorkspacePromises):
    """In a container."""


class TestLost(LostPromises):
    """A container."""


class TestDelete(DeletePromises):
    """Of a container."""


class TestOrphan(OrphanPromises):
    """That is a container."""


class TestSharing(SharingPromises):
    """A container."""


class TestRepeat(RepeatPromises):
    """In a container."""
