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
from temporalio.client import Client

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = EXAMPLES / "README.md"

Run = Callable[..., str]

pytestmark = pytest.mark.timeout(160)  # The first run installs the dependencies.


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
            timeout=150,
            check=False,
        )
        assert 0 == ended.returncode, ended.stderr
        return ended.stdout

    return run


def test_the_readme_lists_every_example() -> None:
    runnable = {path.stem for path in EXAMPLES.rglob("*.py") if "# /// script" in path.read_text()}

    assert runnable == set(_commands())


@pytest.mark.extended
def test_a_project_is_tested_built_and_run_without_an_agent(run: Run) -> None:
    said = run("no_agent")

    assert re.search(r"^Ran 1 test in .*\n\nOK$", said, re.M)
    assert "$ python3 greet.pyz\nHello, world!\n" in said
    assert re.search(r"^greet\.pyz: \d+ bytes$", said, re.M)


@pytest.mark.extended
async def test_an_agent_asks_before_each_command(run: Run, temporal_client: Client) -> None:
    """A fork and a moved workspace have what was there, and the conversation outlives its runs."""
    said = run(
        "approval",
        "\n".join(
            [
                "echo one > notes; cat notes",
                "y",
                "rm notes",
                "n",
                "/fork",
                "/2",
                "echo fork >> notes; cat notes",
                "y",
                "/switch bubblewrap",
                "echo moved >> notes; cat notes",
                "y",
                "/switch nothing",
                "/1",
                "cat notes; pwd",
                "y",
                "cat notes; echo still",
                "y",
            ]
        ),
    )

    answers = re.findall(r"^Allow\? \[y/N\] (.*?)\nchat-", said, re.M | re.S)
    assert ["one", "Tool execution was not approved."] == answers[:2]
    assert ["one\nfork", "one\nfork\nmoved", "one\nstill"] == [*answers[2:4], answers[5]]
    assert answers[4].startswith("one\n/")
    assert 6 == said.count("The agent wants to run ")
    assert "That failed: UnknownProvider: no provider 'nothing'" in said
    first, _fork = dict.fromkeys(re.findall(r"chat-\w+", said))
    last = (await temporal_client.get_workflow_handle(first).describe()).raw_info
    assert last.first_run_id != last.execution.run_id


@pytest.mark.extended
def test_a_large_tenant_does_not_hold_up_a_small_one(run: Run) -> None:
    """Without fairness keys, both are done at about the same time."""
    said = re.findall(
        r"([\d.]+) s: the (\d+) agents of tenant '(\w+)' are done", run("many_agents")
    )

    (small, *of_small), (large, *of_large) = said
    assert (["2", "small"], ["50", "large"]) == (of_small, of_large)
    assert float(small) < 0.7 * float(large)


@pytest.mark.extended
def test_an_mcp_server_in_the_sandbox_answers_the_workflow(run: Run) -> None:
    said = run("mcp_inside")

    assert (
        "add_note: Add a note, and return all of them.\nbuy milk\n\nbuy milk\nsell eggs\n" in said
    )


@pytest.mark.extended
def test_an_agent_of_pydantic_ai_works_in_a_sandbox(run: Run) -> None:
    assert "There are 1229 of them.\n" == run("pydantic_ai_tools")


@pytest.mark.extended
def test_an_agent_of_langgraph_works_in_a_sandbox(run: Run) -> None:
    assert "There are 1229 of them.\n" == run("langgraph_tools")
