"""The restrictions of this package's options, with a real engine."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.errors import ExecTimeoutError
from agents.sandbox.sandboxes import docker as sdk
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from docker.errors import APIError
from docker_engine import IMAGE, RUNTIME, DockerEngine
from docker_workflows import RunRestricted
from support import running_worker, unique
from temporalio.client import Client

from sandbox_core.errors import InvalidOptions
from sandbox_core.wire.agents_models import dump_options, load_options
from sandbox_docker import DockerSandboxClientOptions, sandbox_client_provider
from sandbox_docker.client import ThreadedDockerSandboxClient

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")

Make = Callable[[DockerSandboxClientOptions], Awaitable[SandboxSession]]


@pytest.fixture
async def client(engine: DockerEngine) -> AsyncIterator[ThreadedDockerSandboxClient]:
    made = sandbox_client_provider().create_client()
    yield made
    made.close()


@pytest.fixture
def make(client: ThreadedDockerSandboxClient) -> Make:
    async def started(options: DockerSandboxClientOptions) -> SandboxSession:
        session = await client.create(options=options)
        await session.start()
        return session

    return started


async def said(session: SandboxSession, command: str) -> str:
    ran = await session.exec(command)
    return (ran.stdout + ran.stderr).decode().strip()


class TestOptions:
    """The class itself."""

    def test_they_are_the_same_after_json(self) -> None:
        """Found by their type, as the worker finds them."""
        options = DockerSandboxClientOptions(
            "python:3.12",
            (8000,),
            labels={"team": "a"},
            memory_mb=512,
            cpus=1.5,
            processes=100,
            runtime="runsc",
            read_only=True,
            user="1000:1000",
        )

        parsed = BaseSandboxClientOptions.parse(options.model_dump(mode="json"))

        assert options == parsed
        assert isinstance(parsed, DockerSandboxClientOptions)

    def test_moving_over_changes_one_import(self) -> None:
        """They take what the SDK's take, and are the SDK's."""
        options = DockerSandboxClientOptions("image", (8000,), labels={"a": "b"})

        assert isinstance(options, sdk.DockerSandboxClientOptions)
        theirs = sdk.DockerSandboxClientOptions("image", (8000,), labels={"a": "b"})
        for name in set(type(theirs).model_fields) - {"type"}:
            assert getattr(theirs, name) == getattr(options, name)

    @pytest.mark.parametrize(
        ("chosen", "network"),
        [
            ({}, "none"),
            ({"exposed_ports": (80,)}, None),
            ({"network_mode": None}, None),
            ({"network_mode": "none"}, "none"),
        ],
    )
    def test_there_is_a_network_only_where_one_is_asked_for(
        self, chosen: dict[str, Any], network: str | None
    ) -> None:
        """Also after the wire, which leaves defaults out."""
        options = DockerSandboxClientOptions("image", **chosen)

        assert network == options.network_mode
        assert options == load_options(dump_options(options))

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"memory_mb": 1}, "memory_mb"),
            ({"cpus": 0}, "cpus"),
            ({"processes": 0}, "processes"),
            ({"runtime": "--privileged"}, "runtime"),
            ({"user": "a b"}, "user"),
            ({"network_mode": "host"}, "network_mode"),
            ({"network_mode": "none", "exposed_ports": (80,)}, "exposed_ports"),
        ],
    )
    def test_a_wrong_value_is_one_error(self, wrong: dict[str, Any], named: str) -> None:
        """Which names the field."""
        with pytest.raises(InvalidOptions, match=named):
            DockerSandboxClientOptions("image", **wrong)

    def test_an_unknown_argument_is_refused(self) -> None:
        """Not ignored: a limit that is misspelt would not be there."""
        with pytest.raises(TypeError, match="memory"):
            DockerSandboxClientOptions("image", memory="1g")  # type: ignore[call-arg]


class TestRestrictions:
    """In containers."""

    async def test_a_fork_bomb_leaves_the_host_usable(self, make: Make) -> None:
        """It comes to its end at the limit; the other container and the host do not notice."""
        other = await make(DockerSandboxClientOptions(IMAGE))
        session = await make(DockerSandboxClientOptions(IMAGE, processes=64, cpus=0.5))
        limit = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null"
        assert "64" == await said(session, limit), "no bomb without a limit"

        with pytest.raises(ExecTimeoutError):
            await session.exec(
                "(bomb() { bomb | bomb & }; bomb) 2>/dev/null & exec sleep 60", timeout=2
            )

        assert "fine" == await said(other, "echo fine")
        host = await asyncio.create_subprocess_exec("true")
        assert 0 == await host.wait()
        await session.shutdown()
        assert not await session.running()

    async def test_a_process_that_needs_more_memory_is_killed(self, make: Make) -> None:
        """The sandbox goes on."""
        session = await make(DockerSandboxClientOptions(IMAGE, memory_mb=64))
        ran = await session.exec(f"/usr/bin/{_python()} -c 'bytearray(200_000_000)'")

        assert 137 == ran.exit_code
        assert "still here" == await said(session, "echo still here")

    async def test_cpus_are_the_engines(self, make: Make, engine: DockerEngine) -> None:
        """It is the engine that holds to it."""
        await make(DockerSandboxClientOptions(IMAGE, cpus=0.5))
        (container,) = engine.client.containers.list()

        assert 500_000_000 == container.attrs["HostConfig"]["NanoCpus"]

    async def test_only_the_workspace_and_tmp_can_be_written_to(
        self, make: Make, client: ThreadedDockerSandboxClient, engine: DockerEngine
    ) -> None:
        """Files, commands and saved workspaces work; nothing is left behind."""
        volumes = len(engine.client.volumes.list())
        session = await make(DockerSandboxClientOptions(IMAGE, read_only=True))
        await session.write(Path("file"), io.BytesIO(b"written"))
        refused = await said(session, "touch /etc/file; touch /tmp/file /var/tmp/file && cat file")
        saved = await session.persist_workspace()
        other = await make(DockerSandboxClientOptions(IMAGE, read_only=True))
        await other.hydrate_workspace(saved)

        assert refused.startswith("written")
        assert "Read-only file system" in refused
        assert "written" == await said(other, "cat file")
        for each in (session, other):
            await client.delete(each)
        assert volumes == len(engine.client.volumes.list())

    async def test_without_a_network_there_is_no_way_out(self, make: Make) -> None:
        """Nor to the worker's host; the loopback is the container's own."""
        with socket.create_server(("0.0.0.0", 0)) as listening:
            port = listening.getsockname()[1]
            script = _CONNECT.format(hosts=("127.0.0.1", _address_of_this_host()), port=port)
            session = await make(DockerSandboxClientOptions(IMAGE, network_mode="none"))
            seen = await session.exec(f"/usr/bin/{_python()}", "-c", script, shell=False)

        assert "[111, 101] and reached itself\n" == (seen.stdout + seen.stderr).decode()
        assert "0" == await said(session, "tail -n +2 /proc/net/route | wc -l")

    async def test_a_worker_may_allow_none(
        self, engine: DockerEngine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Options that do not forbid it are refused; those without any are without a network."""
        monkeypatch.setenv("SANDBOX_DOCKER_NETWORK", "none")
        monkeypatch.setenv("SANDBOX_DOCKER_IMAGE", IMAGE)
        provider = sandbox_client_provider()
        client = provider.create_client()
        for options in (
            sdk.DockerSandboxClientOptions(IMAGE),
            DockerSandboxClientOptions(IMAGE, network_mode=None),
            DockerSandboxClientOptions(IMAGE, exposed_ports=(80,)),
        ):
            with pytest.raises(InvalidOptions, match="Pass options with network_mode='none'"):
                await client.create(options=options)
        assert [] == engine.client.containers.list(all=True)
        await client.create(options=provider.default_options())
        (container,) = engine.client.containers.list(all=True)

        assert "none" == container.attrs["HostConfig"]["NetworkMode"]
        client.close()
        monkeypatch.setenv("SANDBOX_DOCKER_NETWORK", "off")
        with pytest.raises(ValueError, match="SANDBOX_DOCKER_NETWORK is 'off': set it to 'none'"):
            provider.create_client()

    async def test_commands_run_as_the_user(self, make: Make) -> None:
        """Whose the workspace is, also with a root that cannot be written to."""
        for read_only in (False, True):
            options = DockerSandboxClientOptions(IMAGE, user="nobody", read_only=read_only)
            session = await make(options)
            await session.write(Path("deep/file"), io.BytesIO(b"written"))
            seen = await said(session, "whoami; cat deep/file && echo more >> deep/file")

            assert "nobody\nwritten" == seen

    async def test_a_user_who_does_not_exist_is_named(
        self, client: ThreadedDockerSandboxClient
    ) -> None:
        """By the engine, whose answer it is."""
        options = DockerSandboxClientOptions(IMAGE, user="missing")
        with pytest.raises(APIError, match="missing"):
            await client.create(options=options)

    async def test_the_runtime_is_the_one_that_is_named(
        self, make: Make, client: ThreadedDockerSandboxClient, engine: DockerEngine
    ) -> None:
        """One that the engine does not know is an answer, which is not asked for again."""
        session = await make(DockerSandboxClientOptions(IMAGE, runtime=RUNTIME))
        (container,) = engine.client.containers.list()

        assert RUNTIME == container.attrs["HostConfig"]["Runtime"]
        assert "runs" == await said(session, "echo runs")
        with pytest.raises(APIError, match=r"[Rr]untime .*kata") as error:
            await client.create(options=DockerSandboxClientOptions(IMAGE, runtime="kata"))
        assert 400 == error.value.status_code
        assert 1 == len(engine.client.containers.list(all=True))

    async def test_a_replacement_is_restricted_too(
        self, make: Make, client: ThreadedDockerSandboxClient, engine: DockerEngine
    ) -> None:
        """By what the state says, which has been JSON."""
        options = DockerSandboxClientOptions(IMAGE, processes=99, read_only=True, user="nobody")
        session = await make(options)
        state = SandboxSessionState.parse(session.state.model_dump(mode="json"))
        await asyncio.to_thread(engine.remove_containers)
        resumed = await client.resume(state)
        await resumed.start()
        (container,) = engine.client.containers.list()

        assert 99 == container.attrs["HostConfig"]["PidsLimit"]
        assert container.attrs["HostConfig"]["ReadonlyRootfs"]
        assert "nobody" == await said(resumed, "whoami")


async def test_a_workflow_names_them(engine: DockerEngine, temporal_client: Client) -> None:
    """The durable way to run commands works in such a container."""
    options = DockerSandboxClientOptions(
        IMAGE, network_mode="none", memory_mb=256, processes=64, read_only=True, user="nobody"
    )
    async with running_worker(temporal_client, RunRestricted) as queue:
        seen = await temporal_client.execute_workflow(
            RunRestricted.run,
            args=[options.model_dump_json(), "whoami; ls /sys/class/net"],
            id=unique("restricted"),
            task_queue=queue,
        )

    assert ["nobody", "lo"] == seen.split()
    assert [] == engine.client.containers.list(all=True)


_CONNECT = """
import socket
print([socket.socket().connect_ex((host, {port})) for host in {hosts}], end=" ")
with socket.create_server(("127.0.0.1", {port})):
    print("and reached itself" if socket.create_connection(("127.0.0.1", {port})) else "")
"""


def _address_of_this_host() -> str:
    """Return one that is not of the loopback, if there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))
        except OSError:
            return "192.0.2.1"
        return str(asking.getsockname()[0])


def _python() -> str:
    return Path("/usr/bin/python3").resolve().name
