"""What pages show of the code is what the code has."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from typing import Any

import pytest
import tomli
from documented import ROOT, blocks, documented, texts
from terminal import Step, steps

from sandbox_core import errors
from sandbox_core.config import OTHER_VARIABLES, SETTINGS


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


def test_each_link_leads_to_a_file() -> None:
    links = {
        (page, target)
        for page, text in texts().items()
        for target in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", text)
    }

    assert len(links) > 100
    assert set() == {
        (p, target) for p, target in links if not (ROOT / p).parent.joinpath(target).exists()
    }


def test_each_variable_is_one_that_is_read() -> None:
    known = {*OTHER_VARIABLES, *(setting.variable for setting in SETTINGS)}
    mistyped = {"SANDBOX_CORE_MAX_OUTPUT"}  # On the page that shows what is said of it.
    named = {
        (page, name)
        for page, text in texts().items()
        for name in re.findall(r"\bSANDBOX_CORE_[A-Z_]*[A-Z]\b", text)
    }

    assert len(named) > 20
    assert set() == {(page, name) for page, name in named if name not in {*known, *mistyped}}


def test_each_name_of_a_module_exists() -> None:
    """Whether dotted, or imported in a line of its own."""
    missing = {
        (page, name)
        for page, text in texts().items()
        for name in (
            *re.findall(r"`(sandbox_core\.[\w.]*\w)", text),
            *map(".".join, re.findall(r"`from (sandbox_core[\w.]*) import (\w+)`", text)),
        )
        if not exists(name)
    }

    assert set() == missing


def exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


def test_the_guide_lists_the_errors_that_a_workflow_may_get() -> None:
    listed = set(re.findall(r"^\| `([A-Z]\w+)` \|", texts()["docs/guide.md"], re.M))
    others = {
        *("ProviderError", "SandboxCoreError"),  # Their bases.
        "ConfigError",  # Before anything runs.
        "SessionNotOpen",  # The workflow opens the session.
    }
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }

    assert listed == defined - others


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
