"""A session's container stops while a worker holds the session."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from agents.sandbox import Manifest
from docker_boxes import Contained
from docker_engine import DockerEngine
from support import running_worker, scheduled_activities, unique
from temporalio.client import Client
from test_docker_lost import SOON_S, failure, kept_session
from workflows.fleet import KeepSession, Kept

from sandbox_core.providers.stopped import SandboxStopped
from sandbox_docker import sandbox_client_provider

pytest_plugins = ["docker_fixtures"]

pytestmark = [pytest.mark.any_sdk, pytest.mark.xdist_group("docker")]


async def stop_container(engine: DockerEngine) -> str:
    """Do what ``docker stop -t0`` does, and return the container's id."""
    (container,) = engine.client.containers.list()
    await asyncio.to_thread(container.stop, timeout=0)
    return str(container.id)


def running(engine: DockerEngine) -> list[str]:
    return [str(container.id) for container in engine.client.containers.list()]


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CORE_STORAGE", str(tmp_path))


@pytest.mark.parametrize(
    ("update", "arguments", "expected"),
    [
        ("do", ["cat hello.txt; echo ran >> runs; cat runs"], "edited\nran\n"),
        ("read", ["hello.txt"], "edited\n"),
        ("write", ["new.txt", "new"], None),
        ("save", [], None),
    ],
)
async def test_every_operation_starts_it_again_with_its_workspace(
    engine: DockerEngine,
    temporal_client: Client,
    update: str,
    arguments: list[str],
    expected: str | None,
) -> None:
    """It is the same container, so nothing is restored."""
    async with kept_session(temporal_client) as handle:
        stopped = await stop_container(engine)
        before = scheduled_activities(await handle.fetch_history())
        seen = await asyncio.wait_for(handle.execute_update(update, args=arguments), SOON_S)
        performed = scheduled_activities(await handle.fetch_history())
        started = running(engine)
        read = await handle.execute_update("read", "hello.txt")
        restored = await handle.execute_update("restorations")

    assert expected == seen
    assert [stopped] == started
    assert "edited\n" == read
    assert [] == restored
    assert 4 >= len(performed) - len(before)


async def test_a_command_that_stops_it_is_not_run_again(
    engine: DockerEngine, temporal_client: Client
) -> None:
    """How far it came is not known; what comes next goes on in the same container."""
    async with kept_session(temporal_client) as handle:
        (container,) = running(engine)
        error = await failure(handle, "do", "echo ran >> runs; kill -9 -1; sleep 60")
        seen = await handle.execute_update("do", "cat hello.txt runs")
        started = running(engine)

    assert "OutcomeUnknown" == error.type
    assert "edited\nran\n" == seen
    assert [container] == started


async def test_a_command_that_was_running_is_not_run_again(
    engine: DockerEngine, temporal_client: Client
) -> None:
    async with kept_session(temporal_client) as handle:
        command = "echo ran >> runs; sleep 60"
        asked = asyncio.create_task(failure(handle, "do", command))
        await handle.execute_update("do", "until [ -e runs ]; do sleep 0.05; done")
        await stop_container(engine)
        error = await asked
        seen = await handle.execute_update("do", "cat hello.txt runs")

    assert "OutcomeUnknown" == error.type
    assert "edited\nran\n" == seen


async def test_operations_at_once_start_it_once(
    engine: DockerEngine, temporal_client: Client
) -> None:
    async with kept_session(temporal_client) as handle:
        stopped = await stop_container(engine)
        seen = await asyncio.gather(
            *(handle.execute_update("do", f"echo {n}; cat hello.txt") for n in range(4)),
            handle.execute_update("read", "hello.txt"),
        )
        started = running(engine)

    assert [*(f"{n}\nedited\n" for n in range(4)), "edited\n"] == seen
    assert [stopped] == started


async def test_the_error_says_why(engine: DockerEngine) -> None:
    """For those who use a session without a workflow too."""
    provider = sandbox_client_provider()
    client = provider.create_client()
    try:
        session = await client.create(manifest=Manifest(), options=provider.default_options())
        await session.start()
        stopped = await stop_container(engine)
        with pytest.raises(SandboxStopped, match=f"{stopped} is not running") as failed:
            await session.exec("true")
        await client.delete(session)
    finally:
        client.close()

    assert "exec_transport_error" == failed.value.error_code


async def test_a_command_whose_record_goes_with_the_processes_is_not_run_again(
    engine: DockerEngine, temporal_client: Client
) -> None:
    """Where the first folder that can be written to is one of memory."""
    async with running_worker(temporal_client, KeepSession) as queue:
        handle = await temporal_client.start_workflow(
            KeepSession.run, Kept(provider="docker"), id=unique("kept"), task_queue=queue
        )
        await handle.execute_update(KeepSession.read, "hello.txt")
        (container,) = engine.client.containers.list()
        box = Contained(sandbox_client_provider(), None, container)  # type: ignore[arg-type]
        for folder in ("/tmp", "/var/tmp"):
            box.mount(folder)
            box.make_read_only(folder)
        error = await failure(handle, "do", "echo ran >> runs; kill -9 -1; sleep 60")
        seen = await handle.execute_update(KeepSession.do, "cat runs")
        await handle.signal(KeepSession.finish)
        await handle.result()

    assert "OutcomeUnknown" == error.type
    assert "ran\n" == seen


async def test_a_command_without_the_helper_runs_once(
    engine: DockerEngine, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has refused it before it began."""
    monkeypatch.setenv("SANDBOX_CORE_HELPER", "off")
    async with kept_session(temporal_client) as handle:
        await stop_container(engine)
        seen = await handle.execute_update("do", "echo ran >> runs; cat runs")

    assert "ran\n" == seen
