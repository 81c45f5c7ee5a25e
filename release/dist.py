"""Builds and checks the sdists and wheels of all distributions: ``make dist``."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from checks import Built, problems, tool_problems
from projects import ROOT, Project, projects


def build(project: Project, target: Path, scratch: Path) -> Built:
    """Build a project's wheel and sdist from the tree, and another wheel from the sdist.

    Args:
        project: What is built.
        target: Where the wheel and the sdist go.
        scratch: Where the other wheel goes.

    Raises:
        RuntimeError: It cannot be built.
    """
    _uv_build(project, "--sdist", "--wheel", "--out-dir", target, project.folder)
    (sdist,) = target.glob(f"{project.package}-*.tar.gz")
    (wheel,) = target.glob(f"{project.package}-*.whl")
    _uv_build(project, "--wheel", "--out-dir", scratch, sdist)
    return Built(project=project, wheel=wheel, sdist=sdist, wheel_of_sdist=scratch / wheel.name)


def _uv_build(project: Project, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "uv", "build", "--quiet", *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{project.name} cannot be built:\n{done.stdout}")


def make_dist(target: Path, tag: str | None) -> list[str]:
    """Build all distributions into a folder, which is emptied, and return what is wrong with them.

    Args:
        target: The folder.
        tag: The tag of the release, ``v1.2.3``; None if there is none.

    Raises:
        RuntimeError: A project cannot be built.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    core, *_ = everything = projects()
    found = []
    if tag is not None and tag != f"v{core.version}":
        found.append(f"the tag is {tag}, and the version {core.version}: expected v{core.version}")
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as executor:
        building = partial(build, target=target, scratch=Path(scratch))
        for built in executor.map(building, everything):
            found += problems(built, core.version)
    (target / ".gitignore").unlink(missing_ok=True)  # Of uv; it would be published.
    return [*found, *tool_problems(sorted(target.iterdir()))]


def main() -> int:
    """Build, check, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="by default dist/")
    parser.add_argument("--tag", help="the tag that is released, which has to name the version")
    arguments = parser.parse_args()
    try:
        found = make_dist(arguments.out, arguments.tag)
    except (OSError, RuntimeError, ValueError) as error:
        found = [str(error)]
    for problem in found:
        sys.stderr.write(f"error: {problem}\n")
    if found:
        return 1
    for file in sorted(arguments.out.iterdir()):
        sys.stdout.write(f"{file.stat().st_size / 1000:8.0f} kB  {file.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
