"""In containers, nothing is lost while workers and servers are killed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from chaos_demo import LONGEST_S, SANDBOX, assert_whole, environment
from docker_engine import IMAGE, DockerEngine
from faults import chaos

pytest_plugins = ["docker_fixtures"]

pytestmark = [pytest.mark.extended, pytest.mark.xdist_group("docker")]


def containers(engine: DockerEngine) -> list[str]:
    return [str(found.id) for found in engine.client.containers.list(all=True)]


@pytest.mark.chaos
@pytest.mark.timeout(chaos.LONGEST_S)
async def test_every_line_is_written_once_and_in_order(
    engine: DockerEngine, tmp_path: Path
) -> None:
    total = await chaos.rounds("docker", tmp_path, lambda _: containers(engine))

    assert total.workers_killed + total.servers_killed > 0
    assert [] == total.violations


def test_the_command_of_the_demo_survives_its_worker(engine: DockerEngine) -> None:
    result = subprocess.run(
        [str(SANDBOX), "demo", "--chaos", "--provider", "docker"],
        env=environment(DOCKER_HOST=engine.host, SANDBOX_DOCKER_IMAGE=IMAGE),
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )

    assert 0 == result.returncode, result.stdout + result.stderr
    assert_whole(result.stdout, "docker")
    assert [] == containers(engine)
