"""Each example runs with the command that its README documents, and prints what it promises."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = EXAMPLES / "README.md"

Run = Callable[..., str]

pytestmark = pytest.mark.timeout(300)  # The first run installs the dependencies.


def _commands() -> dict[str, str]:
    """Return the documented commands by the example's name."""
    commands = re.findall(r"^\| `(uv run [^`]*)` \|", README.read_text(encoding="utf-8"), re.M)
    return {Path(shlex.split(command)[2]).stem: command for command in commands}


@pytest.fixture
def run(temporal_address: str, tmp_path: Path) -> Run:
    """Runs an example with text as its input, and returns what it prints."""
    unset = ("OPENAI_API_KEY", "SANDBOX_CORE_PROVIDERS", "VIRTUAL_ENV")
    env = {
        **{name: value for name, value in os.environ.items() if name not in unset},
        "SANDBOX_CORE_STORAGE": str(tmp_path / "storage"),
        "TEMPORAL_ADDRESS": temporal_address,
        "UV_PYTHON": sys.executable,
    }

    def run(name: str, text: str = "") -> str:
        ended = subprocess.run(
            [Path(sys.executable).with_name("uv"), *shlex.split(_commands()[name])[1:]],
            cwd=ROOT,
            env=env,
            input=text,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert 0 == ended.returncode, ended.stderr
        return ended.stdout

    return run


def test_the_readme_lists_every_example() -> None:
    runnable = {path.stem for path in EXAMPLES.glob("*.py") if "# /// script" in path.read_text()}

    assert runnable == set(_commands())


@pytest.mark.extended
def test_a_project_is_tested_built_and_run_without_an_agent(run: Run) -> None:
    said = run("no_agent")

    assert re.search(r"^Ran 1 test in .*\n\nOK$", said, re.M)
    assert "$ python3 greet.pyz\nHello, world!\n" in said
    assert re.search(r"^greet\.pyz: \d+ bytes$", said, re.M)
