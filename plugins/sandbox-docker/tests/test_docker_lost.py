"""A session's container is removed with the engine while a worker holds the session."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from docker_engine import DockerEngine
from support import running_worker, scheduled_activities, unique
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from workflows.fleet import KeepSession, Kept

pytest_plugins = ["docker_fixtures"]

pytestmark = [pytest.mark.any_sdk, pytest.mark.xdist_group("docker")]

Handle = WorkflowHandle[KeepSession, None]

SOON_S = 25
"""A removed container is noticed long before any timeout of the commands and activities here."""


@asynccontextmanager
async def kept_session(client: Client) -> AsyncIterator[Handle]:
    """Yield a workflow with a session in a container, in which a file was edited."""
    async with running_worker(client, KeepSession) as queue:
        handle = await client.start_workflow(
            KeepSession.run, Kept(provider="docker"), id=unique("kept"), task_queue=queue
        )
        await handle.execute_update(KeepSession.do, "echo edited > hello.txt")
        yield handle
        await handle.signal(KeepSession.finish)
        await handle.result()


async def remove_container(engine: DockerEngine) -> str:
    """Do what ``docker rm -f`` does, and return the container's id."""
    (container,) = engine.client.containers.list()
    await asyncio.to_thread(container.remove, force=True)
    return str(container.id)


async def failure(handle: Handle, update: str, *args: str) -> ApplicationError:
    """Return what an update fails with, soon."""
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await asyncio.wait_for(handle.execute_update(update, args=args), SOON_S)
    assert isinstance(failed.value.cause, ApplicationError)
    return failed.value.cause


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CORE_STORAGE", str(tmp_path))


class TestWithSnapshot:
    async def test_a_command_that_was_running_fails_at_once_and_the_next_goes_on(
        self, engine: DockerEngine, temporal_client: Client
    ) -> None:
        """It may have done anything by then, so it is not run again in what was saved."""
        async with kept_session(temporal_client) as handle:
            await handle.execute_update(KeepSession.save)
            command = "echo ran >> hello.txt; touch running; sleep 60"
            running = asyncio.create_task(failure(handle, "do", command))
            await handle.execute_update(KeepSession.do, "until [ -e running ]; do sleep 0.05; done")
            lost = await remove_container(engine)
            error = await running
            runs = await handle.execute_update(KeepSession.running)
            seen = await handle.execute_update(KeepSession.do, "cat hello.txt")
            restored = await handle.execute_update(KeepSession.restorations)

        assert "SandboxLost" == error.type
        assert error.message.startswith(
            f"sandbox {lost} of provider 'docker' on host {socket.gethostname()} no longer exists"
        )
        assert runs, "it was restored in order to answer"
        assert "edited\n" == seen
        assert [lost] == [before for before, _ in restored]
        assert [] == engine.client.containers.list(all=True)


class TestWithoutSnapshot:
    @pytest.mark.parametrize("update", ["do", "read", "write"])
    async def test_every_operation_says_which_sandbox_is_lost(
        self, engine: DockerEngine, temporal_client: Client, update: str
    ) -> None:
        """With no container in place of the lost one."""
        async with kept_session(temporal_client) as handle:
            lost = await remove_container(engine)
            before = scheduled_activities(await handle.fetch_history())
            arguments = ["new.txt", "new"] if update == "write" else ["hello.txt"]
            errors = [await failure(handle, update, *arguments)]
            performed = scheduled_activities(await handle.fetch_history())
            errors.append(await failure(handle, "read", "hello.txt"))
            running = await handle.execute_update(KeepSession.running)
            left = engine.client.containers.list(all=True)

        # It is asked for at the session's own worker before it is resumed.
        assert 3 >= len(performed) - len(before)
        for error in errors:
            assert "SandboxLost" == error.type
            assert re.match(f"sandbox {lost} of provider 'docker'", error.message)
            assert f" on host {socket.gethostname()}" in error.message
        assert [] == left
        assert not running

    async def test_a_command_that_was_running_fails_at_once(
        self, engine: DockerEngine, temporal_client: Client
    ) -> None:
        """Not when its own timeout, or its activity's, is over."""
        async with kept_session(temporal_client) as handle:
            command = "touch running; sleep 60"
            running = asyncio.create_task(failure(handle, "do", command))
            await handle.execute_update(KeepSession.do, "until [ -e running ]; do sleep 0.05; done")
            lost = await remove_container(engine)
            error = await running

        assert "SandboxLost" == error.type
        assert error.message.startswith(f"sandbox {lost} of provider 'docker'")
        assert [] == engine.client.containers.list(all=True)
