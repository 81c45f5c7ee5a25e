"""What a client can ask for, where commands are reached through a relay."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker_engine import DockerEngine
from docker_workflows import PublishesProcess, RunLocally
from support import running_worker, scheduled_activities, unique
from temporalio.client import Client

from sandbox_core.live import CommandEnded, CommandOutput, follow

pytest_plugins = ["docker_fixtures"]

pytestmark = [pytest.mark.any_sdk, pytest.mark.xdist_group("docker")]


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CORE_STORAGE", str(tmp_path))
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "docker")


async def test_short_commands_are_local_activities(
    engine: DockerEngine, temporal_client: Client
) -> None:
    commands = [f"echo {n} >> counter; cat counter" for n in range(5)]
    async with running_worker(temporal_client, RunLocally) as queue:
        handle = await temporal_client.start_workflow(
            RunLocally.run, commands, id=unique("local"), task_queue=queue
        )
        seen = await handle.result()

    assert ["".join(f"{n}\n" for n in range(end)) for end in range(1, 6)] == seen
    assert 1 == scheduled_activities(await handle.fetch_history()).count("docker-sandbox_exec")


async def test_a_process_is_published_while_nobody_polls_it(
    engine: DockerEngine, temporal_client: Client
) -> None:
    command = "for n in 1 2 3; do echo $n; sleep 1; done; exit 3"
    output, exits = b"", list[int | None]()
    async with running_worker(temporal_client, PublishesProcess) as queue:
        handle = await temporal_client.start_workflow(
            PublishesProcess.run, command, id=unique("published"), task_queue=queue
        )
        async for event in follow(temporal_client, handle.id):
            if isinstance(event, CommandOutput):
                output += event.data
                if output.endswith(b"3\n"):
                    polled = scheduled_activities(await handle.fetch_history())
                    await handle.signal(PublishesProcess.poll)
            elif isinstance(event, CommandEnded):
                exits.append(event.exit_code)

    assert b"1\n2\n3\n" == output
    assert [3] == exits
    assert "docker-sandbox_pty_write_stdin" not in polled
