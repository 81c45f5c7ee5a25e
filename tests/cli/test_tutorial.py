"""The tutorial, step by step, with its code and its commands as printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli.command import SANDBOX

TUTORIAL = (Path(__file__).parents[2] / "docs/tutorial.md").read_text(encoding="utf-8")
WORKER = "sandbox-core worker count:Count --task-queue tutorial"


class Reader:
    """Somebody who follows the tutorial in a folder, beside a server of the test's."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{SANDBOX.parent}:{os.environ['PATH']}",
            "SANDBOX_CORE_PROVIDERS": "bubblewrap",
            "TEMPORAL_ADDRESS": address,
            "TMPDIR": str(folder),
        }

    def run(self, command: str, *, shown: str | None = None) -> str:
        """Run what the tutorial shows, and return what it prints."""
        assert f"\n{shown or command}\n" in TUTORIAL
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run a worker, and kill it."""
        assert f"\n{WORKER}\n" in TUTORIAL
        with (self.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                shlex.split(WORKER), cwd=self.folder, env=self.environment, stderr=log
            )
        try:
            yield
            assert process.poll() is None, "the worker has ended by itself"
        finally:
            process.kill()
            process.wait()


@pytest.mark.extended
@pytest.mark.timeout(240)
def test_a_command_outlives_its_worker(temporal_address: str, tmp_path: Path) -> None:
    ((name, code),) = re.findall(r"`(\w+\.py)`.*?```python\n(.*?)```", TUTORIAL, re.DOTALL)
    (tmp_path / name).write_text(code)
    reader = Reader(tmp_path, temporal_address)
    start = "temporal workflow start --type Count --task-queue tutorial --workflow-id count-1"
    inside = "sandbox-core exec {} -- tail -1 log"

    with reader.worker():
        reader.run(start)
        (sandbox,) = listed(reader)
        counted = reader.run(inside.format(sandbox["sandbox_id"]), shown=inside.format("ID"))
    with reader.worker():
        result = reader.run("temporal workflow result --workflow-id count-1")
        audit = reader.run("sandbox-core audit count-1")

    assert "count-1" == sandbox["workflow_id"]
    assert 0 < int(counted) < 60
    assert "60 lines" in result
    story = [line.split()[3] for line in audit.splitlines()[1:-1]]
    opened = ["create_session", "start", "exec", "resume_session", "exec"]
    assert [*opened, "stop", "shutdown", "delete_session"] == story


def listed(reader: Reader) -> list[dict[str, str]]:
    """Return the sandboxes, once there are any: somebody who types is slower than the worker."""
    deadline = time.monotonic() + 60
    while True:
        found = json.loads(reader.run("sandbox-core ls --json", shown="sandbox-core ls"))
        if found["sandboxes"] or time.monotonic() > deadline:
            return list(found["sandboxes"])
