"""One call makes a provider of a third party's client from PyPI; the kit reports what it lacks.

Cocoon's client for the Agents SDK, unmodified, against a loopback node that runs the commands.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from loopback.cocoon import Node

pytestmark = pytest.mark.packaging

HERE = Path(__file__).parent

LACKS: Final = {
    "package.importing_it_is_light": "its options stand beside its client, which imports its SDK",
    "package.options_and_states_have_no_secrets": "it has the node's token in options and state",
    "commands.the_environment_is_the_manifests": "it passes no environment",
    "commands.a_timeout_is_kept": "it raises TimeoutError, and not ExecTimeoutError",
    "commands.commands_run_at_once": "a command holds a thread of asyncio's own few",
    "files.any_name_is_taken_as_it_is": "the SDK reads names from the lines of `ls`",
    "files.a_missing_file_is_said": "it raises FileNotFoundError",
    "files.a_folder_is_no_file": "it raises its own SDK's error",
    "files.no_path_leads_out": "it checks no paths",
    "files.no_link_leads_out": "it checks no paths",
    "workspace.a_workspace_comes_back_as_it_was": "the SDK restores no hard links",
    "workspace.an_archive_of_another_does_not_lead_out": "it checks no archives",
    "workspace.hydrating_keeps_names_of_any_kind": "to the SDK a backslash is a separator",
    "workspace.skipped_paths_are_not_saved": "it saves what it is told to skip",
}
"""What its author would learn of `sandbox-core check cocoon`."""


@pytest.fixture(scope="session")
def cocoon_installed(once: Callable[..., Path], dist: Path, run: Callable[..., str]) -> Path:
    """An environment with the core, the client from PyPI, and the module that adapts it."""

    def make(path: Path) -> None:
        source = shutil.copytree(HERE / "cocoon", path / "source")
        run("uv", "build", "--quiet", "--wheel", "--out-dir", path / "dist", source)
        (wheel,) = (path / "dist").glob("*.whl")
        (core,) = dist.glob("sandbox_core-*.whl")
        run("uv", "venv", "--quiet", "--python", sys.executable, path / "env")
        python = path / "env" / "bin" / "python"
        run("uv", "pip", "install", "--quiet", "--python", python, core, f"{wheel}")

    return once("cocoon-installed", make) / "env"


@pytest.mark.timeout(600)
def test_the_kit_says_what_it_lacks(cocoon_installed: Path, tmp_path: Path) -> None:
    """Nothing beyond that, and all the rest is kept."""
    with Node(tmp_path) as node:
        checked = subprocess.run(
            [
                *(cocoon_installed / "bin" / "sandbox-core", "check", "cocoon", "--json"),
                *("--level", "package", "--level", "session"),
            ],
            env={"PATH": os.defpath, "HOME": str(tmp_path), "COCOON_ADDR": node.address},
            capture_output=True,
            text=True,
            check=False,
        )
    report = json.loads(checked.stdout)
    broken = {
        check["name"]: check["seen"] for check in report["checks"] if check["status"] == "broken"
    }

    assert set(LACKS) == set(broken), json.dumps(broken, indent=2)
