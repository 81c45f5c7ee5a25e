"""Nothing in a sandbox escapes from it, whether the worker is root or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from bubblewrap_attempts import ATTEMPTS, Attempt
from bubblewrap_scene import MARK, run_in_laboratory
from bubblewrap_worker import Worker

pytest_plugins = ["bubblewrap_fixtures"]

pytestmark = pytest.mark.xdist_group("bubblewrap")

Sandboxes = dict[str, dict[str, object]]


@pytest.fixture(scope="module")
def sandboxes(worker: Worker) -> Sandboxes:
    """The sandboxes of the worker, by their options."""
    return {}


def _opened(
    worker: Worker, sandboxes: Sandboxes, attempt: Attempt, host: Mapping[str, str]
) -> dict[str, object]:
    key = repr(sorted(attempt.options.items()))
    if key in sandboxes and not worker.ask("running", id=sandboxes[key]["id"]):
        del sandboxes[key]
    if key not in sandboxes:
        environment = {"value": dict(host)}
        opened = worker.ask("open", options=dict(attempt.options), environment=environment)
        sandboxes[key] = opened
    return sandboxes[key]


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
class TestAttempt:
    def test_fails_in_a_sandbox(
        self, worker: Worker, sandboxes: Sandboxes, host: dict[str, str], attempt: Attempt
    ) -> None:
        """Process 1 of the sandbox answers afterwards."""
        opened = _opened(worker, sandboxes, attempt, host)
        limits = opened["limits"]
        assert isinstance(limits, dict)
        if attempt.takes == "memory of all" and "cgroup" not in limits["memory"]:
            pytest.skip("memory of all processes is limited by control groups only")
        if attempt.takes is not None:
            assert limits[attempt.takes.partition(" ")[0]] != "nothing"
        result = worker.ask("exec", id=opened["id"], command=attempt.command)
        alive = worker.ask("exec", id=opened["id"], command=["echo", "alive"])

        assert MARK not in result["out"]
        assert "alive\n" == alive["out"]

    def test_succeeds_in_the_laboratory(self, tmp_path: Path, attempt: Attempt) -> None:
        """Or its failure would show nothing."""
        if attempt.uncontrolled is not None:
            pytest.skip(attempt.uncontrolled)
        if os.geteuid() != 0:
            pytest.skip("the laboratory takes root")

        output = run_in_laboratory(attempt.command, tmp_path)
        if attempt.machine_may_lack_it and MARK not in output:
            pytest.skip(f"this machine has no such thing: {output.strip().splitlines()[-1]}")

        assert MARK in output
