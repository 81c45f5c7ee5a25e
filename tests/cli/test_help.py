"""The help texts."""

from __future__ import annotations

import re

import pytest
from cli.command import run_sandbox

from sandbox_core.cli.app import app


def commands() -> list[str]:
    """Return the names of the subcommands."""
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    names = [command.name for command in app.registered_commands]
    for name, group in groups.items():
        assert group is not None
        names += [f"{name} {command.name}" for command in group.registered_commands]
    return [name for name in names if name is not None]


@pytest.mark.parametrize("command", commands())
def test_each_command_has_examples_that_it_accepts(command: str) -> None:
    """Each names the command, and only options that its help lists. Paragraphs fill their lines."""
    result = run_sandbox(*command.split(), "--help", COLUMNS="200")

    assert 0 == result.returncode, result.stderr
    described, _, _ = result.stdout.partition("╭")
    _usage, *paragraphs = re.split(r"\n\s*\n", described.strip())
    for paragraph in paragraphs:
        *full, _ = map(str.strip, paragraph.splitlines())
        assert all(len(line) > 150 for line in full), paragraph
    options, _, examples = result.stdout.partition("Examples:")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert line.startswith(f"sandbox-core {command}")
        own, _, _ = line.partition(" -- ")
        assert set(re.findall(r"--[a-z-]+\b", own)) <= set(re.findall(r"--[a-z-]+\b", options))
