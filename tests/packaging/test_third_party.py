"""A third party's provider works like the ones of this tree, and the core does not know it."""

from __future__ import annotations

import re
import subprocess
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client

pytestmark = pytest.mark.packaging

EXAMPLE = Path(__file__).parent / "acme-sandbox-echo" / "examples" / "visit.py"

DISCOVER = """
from sandbox_core.providers import discover
print(*(f"{found.name} {found.distribution} {found.version}" for found in discover()), sep="\\n")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the worker's backend keeps its sandboxes."""
    path = tmp_path.resolve() / "home"
    path.mkdir()
    return path


@contextmanager
def worker(environment: Path, address: str, task_queue: str, *, home: Path) -> Iterator[None]:
    """Run `EXAMPLE` with the interpreter of another environment, from ready to a clean end."""
    process = subprocess.Popen(
        [environment / "bin" / "python", "-I", EXAMPLE, address, task_queue],
        cwd=home,
        env={"PATH": "/usr/bin:/bin", "ACME_ECHO_HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
            process.stdin.close()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def sandboxes_in(home: Path) -> list[Path]:
    return list(home.iterdir())


async def activity_types(client: Client, workflow_id: str) -> set[str]:
    history = await client.get_workflow_handle(workflow_id).fetch_history()
    return {
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    }


async def test_a_workflow_uses_a_provider_that_the_core_has_never_heard_of(
    echo_installed: Path, temporal_address: str, temporal_client: Client, home: Path
) -> None:
    """To install it is all it takes: its options, its state, its client and its errors work."""
    workflow_id = task_queue = f"third-party-{uuid.uuid4()}"
    with worker(echo_installed, temporal_address, task_queue, home=home):
        visit: dict[str, str | int] = await temporal_client.execute_workflow(
            "VisitWorkflow",
            str(home.parent / "snapshots"),
            id=workflow_id,
            task_queue=task_queue,
            execution_timeout=timedelta(seconds=60),
        )

    assert re.fullmatch(
        rf"{re.escape(str(home))}/visit-[0-9a-f]{{32}}\n", str(visit.pop("directory"))
    )
    assert re.fullmatch(r"echo-[0-9a-f]{32}", str(visit.pop("id_by_default")))
    expected = {
        "from_manifest": "hello\n",
        "stderr": "oh\n",
        "exit_code": 3,
        "read_back": "it rains",
        "missing": "notes/tomorrow.txt",
        "restored": "it rains",
    }
    assert expected == visit
    assert not sandboxes_in(home)

    types = await activity_types(temporal_client, workflow_id)
    operations = "create_session start exec write read stop shutdown delete_session resume_session"
    assert {f"acme-echo-sandbox_{operation}" for operation in operations.split()} <= types
    assert {"acme-echo"} == {name.partition("-sandbox_")[0] for name in types}


def test_only_what_is_installed_is_discovered(
    echo_installed: Path, run: Callable[..., str]
) -> None:
    """Without a plugin of this tree there is no provider of this tree, not even the local one."""
    found = run(echo_installed / "bin" / "python", "-I", "-c", DISCOVER)
    expected = "acme-echo acme-sandbox-echo 1.2.3\n"
    assert expected == found


def test_no_file_of_the_core_names_it(dist: Path) -> None:
    """A provider is added without a change to the core."""
    (wheel,) = dist.glob("sandbox_core-*.whl")
    named = re.compile(rb"acme[-_](sandbox[-_])?echo", re.IGNORECASE)
    with zipfile.ZipFile(wheel) as archive:
        assert not [path for path in archive.namelist() if named.search(archive.read(path))]


def test_its_wheel_is_complete_without_settings_for_the_build(echo_dist: Path) -> None:
    """Whoever copies the example names the package after the project, and hatchling finds it."""
    (wheel,) = echo_dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {"__init__.py", "client.py", "models.py", "py.typed"} == {
            path.partition("/")[2] for path in archive.namelist() if ".dist-info/" not in path
        }
