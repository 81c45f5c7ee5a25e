"""A worker's image, built once for all tests that run it."""

from __future__ import annotations

from pathlib import Path

import pytest
from deployed import build_image
from docker_engine import DockerEngine

pytest_plugins = ["docker_fixtures"]

WAIT = '''
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


@pytest.fixture(scope="session")
def worker_image(shared_engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`WORKER_IMAGE` in the shared engine."""
    build_image(shared_engine, tmp_path_factory.mktemp("image"))


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with the module `app` that the worker, another user, can read."""
    folder = tmp_path / "app"  # `tmp_path` is private.
    folder.mkdir(mode=0o755)
    (folder / "app.py").write_text(WAIT)
    return folder
