"""What pages show of the code is what the code has."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import tomli
from documented import ROOT, blocks, documented
from terminal import Step, steps


def test_the_layers_are_those_that_are_enforced() -> None:
    pyproject = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (
        each for each in pyproject["tool"]["importlinter"]["contracts"] if each["id"] == "layers"
    )
    layers = [layer.replace(" : ", ", ") for layer in contract["layers"]]

    assert "  >  ".join(layers) == documented("CONTRIBUTING.md", "cli, demo").content.strip()


def test_a_frame_of_the_helper_holds_its_message() -> None:
    page: dict[str, Any] = {}
    exec(documented("helper/PROTOCOL.md", "def frame").code, page)
    frame = page["frame"](("verb", b"run"), ("key", b"a1b2c"), ("arg", b"echo"), ("arg", b"hi"))
    message = documented("helper/PROTOCOL.md", "4:verb").content.strip().encode()

    assert len(message).to_bytes(4, "big") + message == frame


BENCHMARKS = [
    step
    for block in blocks()
    if block.page == "benchmarks/README.md"
    for step in steps(block)
    if step.words[0] == "python"
    and "rows.py" not in step.command  # It reads what `bench.py` writes.
]


@pytest.mark.extended
@pytest.mark.parametrize("step", BENCHMARKS, ids=lambda step: step.command)
def test_a_benchmark_takes_its_arguments(step: Step) -> None:
    """Which it reads before it prints its help; none of them is measured here."""
    done = subprocess.run(
        [sys.executable, *step.words[1:], "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    assert step.words[1].rpartition("/")[2] in done.stdout
