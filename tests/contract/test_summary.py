"""The last lines of a pytest run that has checked a provider."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

_TESTS = """\
from sandbox_core.testing.contract.pytest_plugin import ProviderContract


class TestLocal(ProviderContract):
    provider_module = "sandbox_local"
    levels = ("package", "session")
    known_failures = {"workspace.hydrating_keeps_names_of_any_kind": "it is a separator"}
"""


def _end_of_run(folder: Path, *arguments: str) -> Sequence[str]:
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_local.py").write_text(_TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout.splitlines()


@pytest.mark.parametrize("processes", [(), ("-n", "1")], ids=["plain", "xdist"])
def test_a_line_counts_a_known_failure_as_a_promise_that_is_not_kept(
    tmp_path: Path, processes: Sequence[str]
) -> None:
    lines = _end_of_run(
        tmp_path, "-k", "hydrating_keeps_names or streams_come_apart or says_what_it_is", *processes
    )
    (line,) = (each for each in lines if each.startswith("local: "))

    assert re.fullmatch(r"local: contract 1: package 1/1, session 1/2 in \d+ s", line)


def test_a_run_that_checks_no_provider_has_none(tmp_path: Path) -> None:
    lines = _end_of_run(tmp_path, "--collect-only", "-q")

    assert not [line for line in lines if "contract" in line]
