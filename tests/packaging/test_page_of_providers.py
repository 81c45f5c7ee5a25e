"""What the pages say of installing, and of writing a provider, with what would be published."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from documented import Block, blocks, documented
from terminal import Step, steps

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

PAGE = "docs/providers.md"
CLIENT = """
from typing import Literal

from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient as AcmeClient,
    UnixLocalSandboxClientOptions,
)


class AcmeOptions(UnixLocalSandboxClientOptions):
    type: Literal["acme"] = "acme"
"""
PROJECT = """
[project]
name = "acme-sandboxes"
version = "9999"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""

INSTALLS = [
    step
    for block in blocks()
    if block.language == "bash" and not block.page.endswith(".tmpl")
    for step in steps(block)
    if step.words[:2] == ["pip", "install"] and not {"-e", "acme-sandboxes"} & {*step.words}
]


@pytest.mark.parametrize("step", {step.command: step for step in INSTALLS}.values(), ids=str)
def test_what_is_to_be_installed_is_published(
    step: Step, dist: Path, run: Callable[..., str], tmp_path: Path
) -> None:
    """With all that it requires."""
    requirements = tmp_path / "requirements.in"
    requirements.write_text("\n".join(step.words[2:]))
    found = run("uv", "pip", "compile", "--quiet", "--find-links", dist, requirements)

    assert {word.partition("[")[0] for word in step.words[2:]} <= {
        line.partition("==")[0] for line in found.splitlines()
    }


@dataclass
class Author:
    """Types what a page shows, in a folder with an environment."""

    folder: Path
    dist: Path

    def run(self, command: str, *, code: int = 0) -> str:
        uv = f"{sys.executable} -m uv pip install --quiet --python env/bin/python"
        links = f"--find-links {self.dist} --find-links {self.folder}"
        done = subprocess.run(
            ["bash", "-c", re.sub("^pip install", f"{uv} {links}", command)],
            cwd=self.folder,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith("SANDBOX_CORE_")},
                "PATH": f"{self.folder}/env/bin:{os.defpath}",
                "TMPDIR": str(self.folder),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert code == done.returncode, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def author(tmp_path: Path, dist: Path, run: Callable[..., str]) -> Author:
    run("uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "env")
    return Author(tmp_path, dist)


def follow(author: Author, block: Block, *, code: int = 0) -> str:
    """Type all of a block; of the check, which takes minutes, only what needs no sandboxes."""
    *before, check = steps(block)
    for step in before:
        author.run(step.command)
    return author.run(f"{check.command.partition('#')[0]} --level package", code=code)


def test_a_new_provider_passes(author: Author) -> None:
    """With a test that is told more: what is known to fail is listed, until it does not fail."""
    printed = follow(author, documented(PAGE, "pip install sandbox-core\n"))
    told = author.folder / "sandbox-acme" / "tests" / "test_page.py"
    told.write_text(documented(PAGE, "import pytest").content)
    tested = author.run(
        "cd sandbox-acme && pytest -q tests/test_page.py -k 'package or binary_output'", code=1
    )

    assert "package 11/11" in printed
    assert "it is kept, but listed as broken: the API answers with text" in tested
    assert "1 failed" in tested


def test_an_adapted_client_is_checked(author: Author, run: Callable[..., str]) -> None:
    client = author.folder / "client"
    client.mkdir()
    (client / "pyproject.toml").write_text(PROJECT)
    (client / "acme_sandboxes.py").write_text(CLIENT)
    run("uv", "build", "--quiet", "--wheel", "--out-dir", author.folder, client)

    page = documented(PAGE, "pip install sandbox-core acme-sandboxes")
    printed = follow(author, page, code=1)

    assert "package 9/10" in printed
    assert "BROKEN  package  package.importing_it_is_light" in printed
