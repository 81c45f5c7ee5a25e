"""The tutorial, step by step, with its code and its commands as printed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli.command import SANDBOX
from documented import Block, documented
from terminal import steps

PAGE = "docs/tutorial.md"
WORKER = documented(PAGE, "sandbox-core worker").content.strip()


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

    def run(self, block: Block, *more: str, sandbox_id: str = "ID") -> str:
        """Run what the tutorial shows, and return what it prints."""
        (step,) = steps(block)
        words = [sandbox_id if word == "ID" else word for word in step.words]
        done = subprocess.run(
            [*words, *more],
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
    workflow = documented(PAGE, "from datetime import timedelta")
    (tmp_path / f"{workflow.module}.py").write_text(workflow.content)
    reader = Reader(tmp_path, temporal_address)

    with reader.worker():
        reader.run(documented(PAGE, "temporal workflow start"))
        (sandbox,) = listed(reader)
        inside = documented(PAGE, "sandbox-core exec")
        counted = reader.run(inside, sandbox_id=sandbox["sandbox_id"])
    with reader.worker():
        result = reader.run(documented(PAGE, "temporal workflow result"))
        audit = reader.run(documented(PAGE, "sandbox-core audit"))

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
        found = json.loads(reader.run(documented(PAGE, "sandbox-core ls"), "--json"))
        if found["sandboxes"] or time.monotonic() > deadline:
            return list(found["sandboxes"])
