"""`sandbox-core show`, `exec`, `cp`, `shell` and `run` in containers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cli.command import run_sandbox
from cli.screen import sandbox_of, shell
from docker_engine import DockerEngine
from support import running_worker, unique
from temporalio.client import Client
from workflows.visited import Visited

pytest_plugins = ["docker_fixtures"]


class Container:
    """A container of a running workflow, and the commands that look into it."""

    def __init__(self, sandbox_id: str, variables: dict[str, str]) -> None:
        self.sandbox_id = sandbox_id
        self.variables = variables

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run_sandbox, *arguments, **self.variables)


@pytest.fixture
async def container(engine: DockerEngine, temporal_client: Client) -> AsyncIterator[Container]:
    variables = {
        "TEMPORAL_ADDRESS": temporal_client.service_client.config.target_host,
        "SANDBOX_CORE_PROVIDERS": "docker",
    }
    async with running_worker(temporal_client, Visited) as queue:
        handle = await temporal_client.start_workflow(
            Visited.run, "docker", id=unique("visited"), task_queue=queue
        )
        await handle.execute_update(Visited.sandbox_root)
        sandbox_id = await sandbox_of(temporal_client, handle)
        yield Container(sandbox_id, variables)
        await handle.signal(Visited.end)
        await handle.result()


async def test_an_operator_looks_into_a_container(container: Container, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("carried")

    copied = await container.run(
        "cp", str(tmp_path / "in.txt"), f"{container.sandbox_id}:folder/in.txt"
    )
    ran = await container.run(
        "exec", container.sandbox_id, "--", "sh", "-c", "cat folder/in.txt; exit 3"
    )
    back = await container.run("cp", f"{container.sandbox_id}:folder/in.txt", str(tmp_path / "out"))
    folder = await container.run("cp", f"{container.sandbox_id}:folder", str(tmp_path / "folder"))
    again = await container.run("cp", str(tmp_path / "folder"), f"{container.sandbox_id}:folder")
    listed = await container.run("exec", container.sandbox_id, "--", "ls", "folder/folder")
    shown = await container.run("show", container.sandbox_id, "--json")

    assert (0, 0, 0) == (copied.returncode, back.returncode, shown.returncode), copied.stderr
    assert (3, "carried") == (ran.returncode, ran.stdout)
    assert "carried" == (tmp_path / "out").read_text()
    assert (0, 0, "in.txt\n") == (folder.returncode, again.returncode, listed.stdout), again.stderr
    assert "carried" == (tmp_path / "folder" / "in.txt").read_text()
    assert container.sandbox_id == json.loads(shown.stdout)["sandbox_id"]


async def test_a_terminal_in_a_container(container: Container) -> None:
    async with shell(container.variables, container.sandbox_id) as screen:
        screen.type("test -t 0 && echo $((6 * 7)) in $(stty size); exit 3\n")
        await screen.shows("42 in 30 100")

        assert 3 == await screen.ended()


async def test_a_container_for_one_command(engine: DockerEngine) -> None:
    result = await asyncio.to_thread(
        run_sandbox,
        *("run", "docker", "--", "sh", "-c", "echo inside; exit 3"),
        SANDBOX_CORE_PROVIDERS="docker",
    )

    assert (3, "inside\n") == (result.returncode, result.stdout), result.stderr
