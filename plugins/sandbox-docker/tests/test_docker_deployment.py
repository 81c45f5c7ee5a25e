"""`deploy/Dockerfile`: its image is built and run, and stopped in the middle of a command."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from deployed import build_image, wait_healthy, worker_container
from docker.models.containers import Container
from docker_engine import IMAGE, DockerEngine
from support import unique
from temporalio.client import Client

pytest_plugins = ["docker_fixtures"]
pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300)]

APP = '''
from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from sandbox_core.workflow import temporal_sandbox_client

COMMAND = "echo started >> /tmp/log; until [ -e /tmp/go ]; do sleep 0.05; done; wc -l < /tmp/log"


@workflow.defn
class Wait:
    """Runs a command that ends when it may, and returns how often it was started."""

    @workflow.run
    async def run(self) -> str:
        client = temporal_sandbox_client("docker")
        session = await client.create()
        async with session:
            result = await session.exec(COMMAND)
        await client.delete(session)
        return result.stdout.decode().strip()
'''

GRACE_S = 5


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def image(shared_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> None:
    build_image(shared_engine, tmp_path_factory.mktemp("image"))


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with `APP` that the worker, another user, can read; `tmp_path` is private."""
    folder = tmp_path / "app"
    folder.mkdir(mode=0o755)
    (folder / "app.py").write_text(APP)
    return folder


def sandbox_of(engine: DockerEngine) -> Iterator[Container]:
    return (each for each in engine.client.containers.list() if IMAGE in each.image.tags)


def stop(container: Container) -> int:
    """Return the exit code after ``docker stop``, which kills what does not end."""
    container.stop(timeout=6 * GRACE_S)
    container.reload()
    return int(container.attrs["State"]["ExitCode"])


async def until_started(engine: DockerEngine) -> Container:
    """Return the sandbox's container when the command runs in it."""
    while True:
        for container in await asyncio.to_thread(lambda: list(sandbox_of(engine))):
            code, _ = await asyncio.to_thread(container.exec_run, "test -e /tmp/log")
            if code == 0:
                return container
        await asyncio.sleep(0.1)


async def test_a_rolling_update_does_not_repeat_a_command(
    engine: DockerEngine,
    image: None,
    temporal_address: str,
    temporal_client: Client,
    app: Path,
) -> None:
    """The new container is healthy, the old one is stopped: the command goes on, once."""
    queue = unique("deployed")

    command = ("app:Wait", "--task-queue", queue, "--grace-period", f"{GRACE_S}s")

    def running(name: str) -> AbstractContextManager[Container]:
        environment = {
            "TEMPORAL_ADDRESS": temporal_address,
            "SANDBOX_CORE_WORKER_HEALTH_PORT": str(free_port()),
            "SANDBOX_CORE_WORKER_METRICS_PORT": str(free_port()),
        }
        return worker_container(engine, name, *command, environment=environment, app=app)

    with running("old") as old:
        await asyncio.to_thread(wait_healthy, old)
        handle = await temporal_client.start_workflow("Wait", id=unique("wait"), task_queue=queue)
        sandbox = await asyncio.wait_for(until_started(engine), 60)
        with running("new") as new:
            await asyncio.to_thread(wait_healthy, new)

            started = time.monotonic()
            assert 0 == await asyncio.to_thread(stop, old)
            assert time.monotonic() - started < GRACE_S + 10

            await asyncio.to_thread(sandbox.exec_run, "touch /tmp/go")
            # Long before it would be noticed that nobody polls the old worker's own queue.
            assert "1" == await asyncio.wait_for(handle.result(), 30)
            assert 0 == await asyncio.to_thread(stop, new)
