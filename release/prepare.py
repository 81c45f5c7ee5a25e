"""Prepares a release: ``make release VERSION=1.2.3``.

Sets the version of all distributions, has the plugins require this core, and moves the fragments of
`changelog.d` into CHANGELOG.md, unless it is a pre-release. It changes files only; CONTRIBUTING.md
says how to go on.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version
from projects import CORE, ROOT, projects

_REQUIRED = re.compile(rf"(?<=\"){CORE}>=[^\"]*(?=\")")


def requirement(version: Version) -> str:
    """Return what a plugin of a version requires: the core that it was tested with, or a later one.

    A core whose interface for plugins may differ is excluded: the next minor version before 1.0,
    the next major version afterwards. The lower bound is the whole version, since
    ``>=0.2`` would exclude 0.2.0rc1.
    """
    bound = f"{version.major + 1}" if version.major else f"0.{version.minor + 1}"
    return f"{CORE}>={version},<{bound}"


def parse(text: str) -> Version:
    """Return a version that can be released.

    Raises:
        ValueError: It is none.
    """
    try:
        version = Version(text)
    except InvalidVersion as error:
        raise ValueError(f"{text!r} is no version: use VERSION=1.2.3 or 1.2.3rc1") from error
    if str(version) != text or version.local or version.is_devrelease or version.epoch:
        raise ValueError(f"{text!r} cannot be released: use VERSION=1.2.3 or 1.2.3rc1")
    if len(version.release) != 3:
        raise ValueError(f"{text!r} needs three numbers: use VERSION=1.2.3 or 1.2.3rc1")
    return version


def prepare(version: Version, root: Path = ROOT) -> None:
    """Change the files of a tree for the release of a version.

    Raises:
        ValueError: The version is not later than the present one; or a plugin requires no core.
        subprocess.CalledProcessError: The changelog cannot be built.
    """
    core, *plugins = projects(root)
    released = f"## {core.version} (" in (root / "CHANGELOG.md").read_text("utf-8")
    if version < Version(core.version) or (released and version == Version(core.version)):
        raise ValueError(f"{version} is not later than {core.version}")
    examples = sorted(root.glob("tests/packaging/*/pyproject.toml"))
    for pyproject in (*(plugin.pyproject for plugin in plugins), *examples):
        text = pyproject.read_text("utf-8")
        changed, count = _REQUIRED.subn(requirement(version), text)
        if count != 1 and pyproject not in examples:
            raise ValueError(f'{pyproject}: expected one requirement "{CORE}>=..."')
        pyproject.write_text(changed, "utf-8")
    for project in (core, *plugins):
        project.set_version(str(version))
    if version.is_prerelease:
        return  # The fragments are the final release's.
    subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--yes", "--version", str(version)],
        cwd=root,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def main() -> int:
    """Prepare the release of the version in the arguments."""
    try:
        prepare(parse(sys.argv[1] if len(sys.argv) > 1 else ""))
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
