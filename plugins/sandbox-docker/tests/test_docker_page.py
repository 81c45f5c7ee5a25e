"""What the pages show for Docker, with the engine of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docker_engine import IMAGE, DockerEngine
from documented import documented
from support import running_worker, unique
from temporalio.client import Client
from workflows.visited import Visited

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")


async def test_the_client_that_is_adapted_works(
    engine: DockerEngine, temporal_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As provider `mine`: a workflow's sandbox is a container, and is deleted."""
    code = documented("docs/providers.md", "import asyncio").code
    page: dict[str, Any] = {}
    exec(code.replace('"python:3.12"', f'"{IMAGE}"'), page)  # Without a registry.
    async with running_worker(temporal_client, Visited, plugins=[page["plugin"]]) as queue:
        handle = await temporal_client.start_workflow(
            Visited.run, "mine", id=unique("page"), task_queue=queue
        )
        said = await handle.execute_update(Visited.exec, "echo here")
        containers = len(engine.client.containers.list())
        await handle.signal(Visited.end)
        await handle.result()

    assert "here\n" == said
    assert 1 == containers
    assert [] == engine.client.containers.list(all=True)
