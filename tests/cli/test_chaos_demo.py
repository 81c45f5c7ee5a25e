"""`sandbox-core demo --chaos`, run as a user runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from chaos_demo import LONGEST_S, SANDBOX, assert_whole, environment
from cli.command import run_sandbox
from faults.harness import running
from support import unique

from sandbox_core import __version__

pytestmark = pytest.mark.extended

COMMAND = [str(SANDBOX), "demo", "--chaos", "--provider", "local"]


def workers_of(shown: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"Worker (\d+) starts", shown)]


def started(temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMAND, env=environment(TMPDIR=str(temporary)), stdout=subprocess.PIPE, text=True
    )


def shown_until(moment: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    shown = ""
    while moment not in shown:
        line = process.stdout.readline()
        assert line, shown
        shown += line
    return shown


class TestChaos:
    def test_the_command_survives_its_worker(self, tmp_path: Path) -> None:
        result = subprocess.run(
            COMMAND,
            env=environment(TMPDIR=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )

        assert 0 == result.returncode, result.stdout + result.stderr
        assert_whole(result.stdout, "local")
        assert "" == result.stderr
        assert [] == [pid for pid in workers_of(result.stdout) if running(pid)]
        assert [] == list(tmp_path.glob("sandbox-local-*"))

    def test_an_interrupt_leaves_nothing_behind(self, tmp_path: Path) -> None:
        """Also when there is no worker to delete the sandbox."""
        with started(tmp_path) as process:
            shown = shown_until("is killed with SIGKILL", process)
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=LONGEST_S)

        assert 128 + signal.SIGINT == process.returncode
        assert [] == [pid for pid in workers_of(shown + rest) if running(pid)]
        assert [] == list(tmp_path.glob("sandbox-local-*"))

    def test_a_worker_does_not_outlive_the_demo(self, temporal_address: str) -> None:
        """Its stdin is closed then, whatever the demo has died of."""
        worker = subprocess.run(
            [sys.executable, "-m", "sandbox_core.demo.worker", temporal_address, unique("demo")],
            env=environment(SANDBOX_CORE_PROVIDERS="local"),
            input="",
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )

        assert (0, "", "") == (worker.returncode, worker.stdout, worker.stderr)

    def test_a_provider_that_cannot_be_used_is_one_clear_error(self) -> None:
        result = run_sandbox(
            *("demo", "--chaos", "--provider", "docker"), DOCKER_HOST="unix:///nowhere.sock"
        )

        assert 1 == result.returncode
        assert (
            f"provider 'docker' (sandbox-docker {__version__}) is installed but cannot be used"
            in result.stderr
        )
