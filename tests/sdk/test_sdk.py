"""The Agents SDK's own sandbox tests pass with the sessions of a workflow.

They come unchanged from the sdist of the installed SDK. Each runs in a workflow on a real server,
with a real worker and the provider `local`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from sdk.in_workflow import ADDRESS, OUTCOMES
from sdk.lists import ELSEWHERE, IN_WORKFLOWS, KNOWN

pytestmark = [pytest.mark.extended, pytest.mark.xdist_group("sdk"), pytest.mark.timeout(400)]

FOLDER = Path("tests/sandbox")


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The tests by how they have ended, and all that pytest has written."""

    passed: set[str]
    skipped: set[str]
    failed: set[str]
    output: str


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of the SDK that is installed, unpacked."""
    name = "openai-agents"
    wanted = f"{name}=={version(name)}"
    folder = tmp_path_factory.mktemp("sdk")
    download = ("download", "--quiet", "--no-deps", "--no-binary", name, "--dest", folder, wanted)
    done = subprocess.run(
        (sys.executable, "-m", "pip", *download), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"pip could not download the sdist of {wanted}:\n{done.stderr}"
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    return folder / sdist.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def outcomes(sdk: Path, temporal_address: str) -> Outcomes:
    """How the SDK's tests end: a pytest of their own runs them, with the plugin `in_workflow`."""
    written = sdk / "outcomes.json"
    temporary = sdk / "tmp"
    temporary.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "TMPDIR": str(temporary),
        ADDRESS: temporal_address,
        OUTCOMES: str(written),
    }
    plugins = ("-p", "sdk.in_workflow", "-p", "no:asyncio", "-p", "no:cacheprovider")
    options = ("--quiet", "--tb=short", "--disable-warnings")
    files = [FOLDER / file for file in IN_WORKFLOWS]
    done = subprocess.run(
        (sys.executable, "-m", "pytest", *plugins, *options, *files),
        cwd=sdk,
        env=environment,
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
    )
    output = done.stdout + done.stderr
    assert written.exists(), output
    ended = json.loads(written.read_text(encoding="utf-8")).items()
    of = {
        kind: {test.removeprefix(f"{FOLDER}/") for test, outcome in ended if outcome == kind}
        for kind in ("passed", "skipped", "failed")
    }
    return Outcomes(**of, output=output)


def test_every_test_file_of_the_sdk_is_run_or_has_a_reason_why_not(sdk: Path) -> None:
    files = {str(path.relative_to(sdk / FOLDER)) for path in (sdk / FOLDER).rglob("test_*.py")}
    assert files - {*IN_WORKFLOWS, *ELSEWHERE} == set(), "look at these, and add them to lists.py"
    assert {*IN_WORKFLOWS, *ELSEWHERE} - files == set(), "the SDK has these no more"


def test_every_file_that_is_run_has_tests_of_a_session_or_a_client(outcomes: Outcomes) -> None:
    run = {test.split("::")[0] for test in outcomes.passed | outcomes.failed | outcomes.skipped}
    assert set(IN_WORKFLOWS) == run, outcomes.output


def test_the_sdks_tests_pass_in_workflows_except_the_known(
    outcomes: Outcomes, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(  # noqa: T201 - the figure is what one wants to know
            f"\nthe SDK's tests in workflows: {len(outcomes.passed)} passed, "
            f"{len(outcomes.failed)} failed, of which {len(KNOWN)} are known"
        )
    assert outcomes.failed - KNOWN.keys() == set(), outcomes.output


def test_the_known_failures_still_fail(outcomes: Outcomes) -> None:
    assert KNOWN.keys() - outcomes.failed == set(), "these pass, or the SDK has them no more"
