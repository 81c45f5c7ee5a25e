"""Provider `docker`: its description, and workflows' sessions with a real engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from agents.sandbox import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot
from docker_engine import IMAGE, DockerEngine
from docker_workflows import RunInImage
from support import running_worker, unique
from temporalio.client import Client
from workflows.sessions import CAUGHT_ERRORS, CaughtErrors, StepByStep

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import CAPABILITIES
from sandbox_docker import DockerProvider, sandbox_client_provider
from sandbox_docker.engine import EngineUnreachable

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")

NOWHERE = "unix:///nowhere/docker.sock"


@pytest.fixture
def provider() -> DockerProvider:
    return sandbox_client_provider()


class TestProvider:
    """What needs no engine."""

    def test_it_has_every_optional_ability(self, provider: DockerProvider) -> None:
        """An engine can be asked for everything."""
        assert set(CAPABILITIES) - {"host processes"} == {
            name for name, cls in CAPABILITIES.items() if isinstance(provider, cls)
        }

    @pytest.mark.parametrize(
        ("host", "bound"),
        [
            (None, True),
            ("", True),
            ("unix:///run/user/1000/docker.sock", True),
            ("tcp://docker.example.com:2376", False),
            ("ssh://docker.example.com", False),
        ],
    )
    def test_only_the_containers_of_a_local_socket_are_bound_to_the_host(
        self, monkeypatch: pytest.MonkeyPatch, host: str | None, bound: bool
    ) -> None:
        """Workers on other hosts reach the others as well."""
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        if host is not None:
            monkeypatch.setenv("DOCKER_HOST", host)

        assert bound == sandbox_client_provider().host_bound

    def test_importing_it_looks_for_no_engine(self) -> None:
        """Nor does making the provider: a worker may only run workflows."""
        code = (
            "import sys, sandbox_docker; sandbox_docker.sandbox_client_provider(); "
            "print('sandbox_docker.client' in sys.modules)"
        )
        shown = subprocess.run(
            [sys.executable, "-c", code],
            env={"DOCKER_HOST": NOWHERE},
            capture_output=True,
            text=True,
            check=True,
        )

        assert "False\n" == shown.stdout

    def test_a_client_of_an_engine_that_does_not_answer_says_where_it_looked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message reaches whoever uses the provider on that worker."""
        monkeypatch.setenv("DOCKER_HOST", NOWHERE)

        with pytest.raises(EngineUnreachable, match=f"at {NOWHERE} "):
            sandbox_client_provider().create_client()

    def test_the_environment_may_name_an_image(
        self, provider: DockerProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Otherwise options are required."""
        monkeypatch.setenv("SANDBOX_DOCKER_IMAGE", "python:3.12")
        options = provider.default_options()
        monkeypatch.delenv("SANDBOX_DOCKER_IMAGE")

        assert "python:3.12" == options.image
        with pytest.raises(ValueError, match="SANDBOX_DOCKER_IMAGE is not set on the worker"):
            provider.default_options()

    def test_the_state_of_another_backend_is_refused(self, provider: DockerProvider) -> None:
        """It has no container."""
        state = UnixLocalSandboxSessionState(snapshot=NoopSnapshot(id="x"), manifest=Manifest())

        with pytest.raises(InvalidRequest, match="a session state of type 'unix_local' is not"):
            provider.identity(state)


class TestLookups:
    """What the provider asks an engine for."""

    async def test_the_volumes_of_a_session_go_with_its_container(
        self, engine: DockerEngine
    ) -> None:
        """A volume of the user's own stays."""
        before = {volume.name for volume in engine.client.volumes.list()}
        of_session = f"sandbox_{'0' * 32}_{'0' * 12}_workspace_data"
        volumes = {of_session: {"bind": "/data"}, "of-user": {"bind": "/own"}}
        container = engine.client.containers.create(IMAGE, "true", volumes=volumes)
        provider = sandbox_client_provider()
        client = provider.create_client()
        await provider.destroy(client, container.id)
        client.close()

        left = {volume.name for volume in engine.client.volumes.list()}
        assert {"of-user"} == left - before
        engine.client.volumes.get("of-user").remove()

    async def test_no_answer_is_not_a_no(
        self,
        engine: DockerEngine,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The container may well exist."""
        address = tmp_path_factory.mktemp("engine") / "docker.sock"
        address.symlink_to(engine.host.removeprefix("unix://"))
        monkeypatch.setenv("DOCKER_HOST", f"unix://{address}")
        provider = sandbox_client_provider()
        client = provider.create_client()
        await provider.check(client)
        address.unlink()
        client.close()  # Or it would use the connection that it has.

        with pytest.raises(OSError, match="No such file"):
            await provider.check(client)
        with pytest.raises(OSError, match="No such file"):
            await provider.exists(client, "some-container")


class TestSession:
    """A session in a workflow."""

    # A worker that stops drops its workflows, and with them their `async with` blocks, unfinished.
    pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

    async def test_runs_in_the_image_that_the_workflow_names(
        self, engine: DockerEngine, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the worker's default is; nothing is left."""
        monkeypatch.setenv("SANDBOX_DOCKER_IMAGE", "another")
        async with running_worker(temporal_client, RunInImage) as queue:
            said = await temporal_client.execute_workflow(
                RunInImage.run, args=[IMAGE, "pwd"], id=unique("image"), task_queue=queue
            )

        assert "/workspace\n" == said
        assert [] == engine.client.containers.list(all=True)

    async def test_goes_on_when_its_container_was_stopped(
        self, engine: DockerEngine, temporal_client: Client
    ) -> None:
        """The container is started again, and its files are there."""
        queue = unique("queue")
        async with running_worker(temporal_client, StepByStep, task_queue=queue):
            handle = await temporal_client.start_workflow(
                StepByStep.run, "docker", id=unique("steps"), task_queue=queue
            )
            await handle.execute_update(StepByStep.do, "echo edited > hello.txt")
        (container,) = engine.client.containers.list()
        container.kill()
        async with running_worker(temporal_client, StepByStep, task_queue=queue):
            seen = await handle.execute_update(StepByStep.do, "cat hello.txt")
            await handle.signal(StepByStep.finish)
            await handle.result()

        assert "edited\n" == seen
        assert [] == engine.client.containers.list(all=True)

    async def test_errors_are_caught_by_their_class_in_the_workflow(
        self, engine: DockerEngine, temporal_client: Client
    ) -> None:
        """As those of any other provider."""
        async with running_worker(temporal_client, CaughtErrors) as queue:
            seen = await temporal_client.execute_workflow(
                CaughtErrors.run, "docker", id=unique("caught"), task_queue=queue
            )

        assert CAUGHT_ERRORS == seen
        assert [] == engine.client.containers.list(all=True)


def test_the_demo_runs_in_docker(engine: DockerEngine) -> None:
    """`sandbox-core demo --provider docker`, with the image named by the environment."""
    sandbox = Path(sys.executable).parent / "sandbox-core"
    command = [str(sandbox), "demo", "--provider", "docker"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)

    assert 0 == result.returncode, result.stdout + result.stderr
    assert re.search(r"✓ docker-sandbox_pty_exec_start +\d+ ms  python3 -m unittest", result.stdout)
    assert "Sandboxes: 1 created, 1 deleted, none left" in result.stdout
    assert [] == engine.client.containers.list(all=True)
