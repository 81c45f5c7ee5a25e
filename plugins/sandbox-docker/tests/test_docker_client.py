"""The differences of the provider's client from the SDK's, with a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from time import monotonic

import pytest
from agents.sandbox.errors import ExecTimeoutError
from agents.sandbox.sandboxes.docker import DockerSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from docker_engine import IMAGE, DockerEngine

from sandbox_core.errors import InvalidOptions
from sandbox_docker import sandbox_client_provider
from sandbox_docker.client import ThreadedDockerSandboxClient

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")

OPTIONS = DockerSandboxClientOptions(image=IMAGE)


@pytest.fixture
async def client(engine: DockerEngine) -> AsyncIterator[ThreadedDockerSandboxClient]:
    made = sandbox_client_provider().create_client()
    yield made
    made.close()


@pytest.fixture
async def session(client: ThreadedDockerSandboxClient) -> SandboxSession:
    created = await client.create(options=OPTIONS)
    await created.start()
    return created


async def _processes(session: SandboxSession) -> list[str]:
    """Return the names of the container's processes, without those that look."""
    shown = await session.exec("cat /proc/[0-9]*/comm")
    return sorted(name for name in shown.stdout.decode().split() if name not in ("sh", "cat"))


@pytest.mark.parametrize("image", ["", " "])
async def test_options_without_an_image_are_refused(
    client: ThreadedDockerSandboxClient, image: str
) -> None:
    with pytest.raises(InvalidOptions, match="image is empty"):
        await client.create(options=DockerSandboxClientOptions(image=image))


class TestEventLoop:
    """The event loop, which all sessions of a worker share, goes on while an engine is asked."""

    async def test_runs_on_while_an_engine_does_not_answer(
        self,
        engine: DockerEngine,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """Otherwise this test would wait for an engine that nobody wakes."""
        other = await client.create(options=OPTIONS)
        with engine.halted():
            asked: list[asyncio.Task[object]] = [
                asyncio.create_task(call)
                for call in (
                    client.create(options=OPTIONS),
                    client.resume(session.state),
                    client.delete(other),
                    client.check_engine(),
                    client.has_container("some"),
                    session.exec("true"),
                    session.running(),
                    session.start(),
                )
            ]
            done, _ = await asyncio.wait(asked, timeout=0.2)
            assert set() == done
        await asyncio.gather(*asked)
        assert await session.running()

    async def test_shutdown_takes_no_time(self, session: SandboxSession) -> None:
        """The SDK's waits 10 s for a process that ignores it, in the event loop."""
        longest = 0.0

        async def beat() -> None:
            nonlocal longest
            while True:
                before = monotonic()
                await asyncio.sleep(0.01)  # How late it returns is what is measured.
                longest = max(longest, monotonic() - before)

        beating = asyncio.create_task(beat())
        started = monotonic()
        await session.shutdown()
        took = monotonic() - started
        beating.cancel()

        assert took < 10
        assert longest < 5
        assert not await session.running()

    async def test_shutdown_of_what_does_not_run_is_no_error(
        self, engine: DockerEngine, session: SandboxSession
    ) -> None:
        """Whether it has stopped or is gone."""
        await session.shutdown()
        await session.shutdown()
        engine.remove_containers()
        await session.shutdown()

        assert not await session.running()

    async def test_a_create_that_is_cancelled_leaves_no_container(
        self, engine: DockerEngine, client: ThreadedDockerSandboxClient
    ) -> None:
        """The engine makes it all the same, and only then can it be removed."""
        with closing(engine.client.events(filters={"type": "container"}, decode=True)) as events:
            with engine.halted():
                creating = asyncio.create_task(client.create(options=OPTIONS))
                await asyncio.wait({creating}, timeout=0.2)
                creating.cancel()
            with pytest.raises(asyncio.CancelledError):
                await creating

            assert "create" == next(events)["Action"]
        assert [] == engine.client.containers.list(all=True)


class TestCommands:
    """Commands end when they should, and leave nothing behind."""

    @pytest.mark.parametrize(
        "command",
        [
            pytest.param("exec sleep 60", id="replaces its shell"),
            pytest.param("sleep 60 & setsid sleep 60 & (sleep 60; true) | cat", id="has children"),
            pytest.param("sleep 60 # [a-z", id="is no pattern"),
            pytest.param("exec >/dev/null 2>&1; sleep 60", id="has closed its output"),
        ],
    )
    async def test_a_timeout_ends_every_process(
        self, session: SandboxSession, command: str
    ) -> None:
        """There is no `pkill` in the image, and none is needed."""
        with pytest.raises(ExecTimeoutError):
            await asyncio.wait_for(session.exec(command, timeout=0.5), 30)

        assert ["docker-init", "tail"] == await _processes(session)

    async def test_a_timeout_ends_the_processes_of_another_user(
        self, session: SandboxSession
    ) -> None:
        """It is that user who ends them."""
        with pytest.raises(ExecTimeoutError):
            await session.exec("sleep 60; true", timeout=0.5, user="nobody")

        assert ["docker-init", "tail"] == await _processes(session)

    async def test_an_exit_code_is_waited_for(self, session: SandboxSession) -> None:
        """Even if the command closes its output long before it ends."""
        result = await session.exec("exec >&- 2>&-; sleep 0.5; exit 3")

        assert 3 == result.exit_code

    async def test_a_command_without_timeout_sees_no_mark(self, session: SandboxSession) -> None:
        """Nor does it find any other variable of the provider's."""
        result = await session.exec("env")

        assert "SANDBOX" not in result.stdout.decode()

    async def test_orphans_are_reaped(self, session: SandboxSession) -> None:
        """`tail` as process 1 would keep them as zombies, one for each."""
        result = await session.exec(
            "orphan=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); "
            "while [ -e /proc/$orphan ]; do sleep 0.1; done",
            timeout=10,
        )

        assert result.ok()

    async def test_many_run_at_once(self, session: SandboxSession) -> None:
        """Each waits for all others; the SDK runs 8 at once in a whole process."""
        await session.mkdir("here")
        meet = "touch here/{}; until [ $(ls here | wc -l) = 12 ]; do sleep 0.2; done"
        commands = [session.exec(meet.format(number), timeout=30) for number in range(12)]
        results = await asyncio.gather(*commands)

        assert all(result.ok() for result in results)
