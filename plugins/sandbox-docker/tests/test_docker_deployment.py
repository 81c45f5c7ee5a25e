"""`deploy/Dockerfile`: its image is built and run, and stopped in the middle of a command."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from deployed import wait_healthy, wait_started, worker_container
from docker.models.containers import Container
from docker_engine import DockerEngine
from support import unique
from temporalio.client import Client

pytest_plugins = ["deployed_fixtures"]
pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("deployed"),
]

GRACE_S = 5


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def stop(container: Container) -> int:
    """Return the exit code after ``docker stop``, which kills what does not end."""
    container.stop(timeout=6 * GRACE_S)
    container.reload()
    return int(container.attrs["State"]["ExitCode"])


async def test_a_rolling_update_does_not_repeat_a_command(
    engine: DockerEngine,
    worker_image: None,
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
        sandbox = await asyncio.to_thread(wait_started, engine)
        with running("new") as new:
            await asyncio.to_thread(wait_healthy, new)

            started = time.monotonic()
            assert 0 == await asyncio.to_thread(stop, old)
            assert time.monotonic() - started < GRACE_S + 10

            await asyncio.to_thread(sandbox.exec_run, "touch /tmp/go")
            # Long before it would be noticed that nobody polls the old worker's own queue.
            assert "1" == await asyncio.wait_for(handle.result(), 30)
            assert 0 == await asyncio.to_thread(stop, new)
