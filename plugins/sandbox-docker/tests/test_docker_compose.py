"""`deploy/compose.yaml`: everything comes up, is updated, is stopped, and leaves nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import docker_compose
import pytest
from deployed import wait_started
from docker.models.containers import Container
from docker_compose import Project
from docker_engine import DockerEngine

pytest_plugins = ["deployed_fixtures"]
pytestmark = [
    pytest.mark.packaging,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("deployed"),
    pytest.mark.skipif(not docker_compose.available(), reason=docker_compose.UNAVAILABLE),
]

GRACE_S = 5


@pytest.fixture
def project(
    shared_engine: DockerEngine, worker_image: None, tmp_path: Path, app: Path
) -> Iterator[Project]:
    setting = f"SANDBOX_CORE_WORKER_GRACE_PERIOD={GRACE_S}s"
    with docker_compose.project(shared_engine, tmp_path, app, setting) as running:
        yield running


def exit_code(container: Container) -> int:
    container.reload()
    return int(container.attrs["State"]["ExitCode"])


def test_workers_take_over_and_nothing_is_left(project: Project) -> None:
    """What docs/deploy.md says: a new worker first, then the old one is stopped."""
    up = ("up", "--detach", "--wait", "--scale")
    engine = project.engine
    project.compose(*up, "worker=1")
    (old,) = engine.client.containers.list(filters={"ancestor": "sandbox-worker"})
    project.temporal(
        *("workflow", "start", "--type", "Wait", "--task-queue", "agents", "--workflow-id", "wait")
    )
    sandbox = wait_started(engine)

    project.compose(*up, "worker=2", "--no-recreate")
    started = time.monotonic()
    old.stop(timeout=35)
    assert 0 == exit_code(old)
    assert time.monotonic() - started < GRACE_S + 10

    sandbox.exec_run("touch /tmp/go")
    result = project.temporal("workflow", "result", "--workflow-id", "wait", "--output", "json")
    assert '"result": "1"' in result, "the command was started again"

    project.compose("stop")
    workers = engine.client.containers.list(all=True, filters={"ancestor": "sandbox-worker"})
    assert [0, 0] == [exit_code(worker) for worker in workers]

    project.compose("down", "--volumes")
    assert [] == engine.client.containers.list(all=True)
    assert [] == engine.client.volumes.list()
    assert {"bridge", "host", "none"} == {each.name for each in engine.client.networks.list()}
