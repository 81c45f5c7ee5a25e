"""What is checked of the built distributions, beside what their metadata says."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from projects import CORE, ROOT, Project

_HELPERS: Final = "sandbox_core/worker/commands/helper"
_ELF_MACHINES: Final = {"x86_64": 62, "aarch64": 183}
_NO_PART_OF_A_RELEASE: Final = re.compile(r"(^|/)(tests?|test_[^/]*|conftest\.py|[^/]*\.pyc)(/|$)")
# Their tests are what they are for: the project that the demo repairs, and the new provider's.
_WITH_TESTS: Final = ("sandbox_core/demo/project/", "sandbox_core/cli/scaffold/template/")


@dataclass(frozen=True, kw_only=True)
class Built:
    """The distributions that were built of a project."""

    project: Project
    wheel: Path
    sdist: Path
    wheel_of_sdist: Path


def problems(built: Built, version: str) -> Iterator[str]:
    """Yield what is wrong with a project's distributions, each as one line.

    Args:
        built: The project and its distributions.
        version: The version that all have to have.
    """
    found = [
        *_version(built, version),
        *_contents(built),
        *_helpers(built),
        *_license(built),
        *_sdist(built),
        *_rebuilt(built),
        *_links(built),
    ]
    yield from (f"{built.project.name}: {problem}" for problem in found)


def tool_problems(files: list[Path]) -> Iterator[str]:
    """Yield what twine and check-wheel-contents find."""
    wheels = [file for file in files if file.suffix == ".whl"]
    for tool, arguments in (
        (["twine", "--no-color", "check", "--strict"], files),
        (["check_wheel_contents"], wheels),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *tool, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            lines = done.stdout.splitlines()
            bad = [line.strip() for line in lines if not line.rstrip().endswith((": OK", "PASSED"))]
            yield f"{tool[0]}: {' '.join(filter(None, bad)) or f'exit code {done.returncode}'}"


def _version(built: Built, version: str) -> Iterator[str]:
    (found,) = importlib.metadata.Distribution.discover(path=[str(built.wheel)])
    if found.version != version:
        yield f"its version is {found.version}, and the core's {version}: use `make release`"


def _contents(built: Built) -> Iterator[str]:
    package = built.project.package
    files = [path for path in _wheel(built.wheel) if ".dist-info/" not in path]
    source = built.project.source
    expected = {
        path.relative_to(source.parent).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for path in sorted(expected - {*files}):
        yield f"the wheel lacks {path}"
    for path in sorted({*files} - expected):
        yield f"the wheel has {path}, which is not in the tree"
    if f"{package}/py.typed" not in files:
        yield f"there is no {package}/py.typed, without which type checkers ignore its types"
    for path in files:
        if _NO_PART_OF_A_RELEASE.search(path) and not path.startswith(_WITH_TESTS):
            yield f"the wheel has {path}, which belongs in no release"


def _helpers(built: Built) -> Iterator[str]:
    if built.project.name != CORE:
        return
    with zipfile.ZipFile(built.wheel) as archive:
        for machine, elf_machine in _ELF_MACHINES.items():
            path = f"{_HELPERS}/sandbox-helper-{machine}-linux"
            if path not in archive.namelist():
                yield f"there is no {path}, without which commands run at most once: `make helper`"
                continue
            content = archive.read(path)
            is_elf = content[:5] == b"\x7fELF\x02"
            if not is_elf or int.from_bytes(content[18:20], "little") != elf_machine:
                yield f"{path} is no program for Linux on {machine}: `make helper`"
            if not archive.getinfo(path).external_attr >> 16 & 0o100:
                yield f"{path} is not executable: chmod +x"


def _license(built: Built) -> Iterator[str]:
    text = (ROOT / "LICENSE").read_bytes()
    carried = [
        content
        for path, content in _wheel(built.wheel).items()
        if PurePosixPath(path).match("*.dist-info/licenses/LICENSE")
    ]
    if carried != [text]:
        yield "the wheel lacks the LICENSE of this repository"


def _sdist(built: Built) -> Iterator[str]:
    with tarfile.open(built.sdist) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        if name not in names:
            yield f"the sdist lacks {name}"
    expected = {".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    for name in names:
        if name not in expected and not name.startswith(f"src/{built.project.package}/"):
            yield f"the sdist has {name}, which is no part of the project"


def _links(built: Built) -> Iterator[str]:
    (found,) = importlib.metadata.Distribution.discover(path=[str(built.wheel)])
    description = str(found.metadata.json.get("description", ""))
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", description):
        yield f"its page on PyPI has a link to {target}, a file that is not there"


def _rebuilt(built: Built) -> Iterator[str]:
    of_tree, of_sdist = _wheel(built.wheel), _wheel(built.wheel_of_sdist)
    for path in sorted({*of_tree} | {*of_sdist}):
        if path not in of_sdist:
            yield f"a wheel built from the sdist lacks {path}"
        elif path not in of_tree:
            yield f"a wheel built from the sdist has {path}, and one from the tree does not"
        elif of_tree[path] != of_sdist[path] and not path.endswith(".dist-info/RECORD"):
            yield f"a wheel built from the sdist has another {path}"


def _wheel(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {path: archive.read(path) for path in archive.namelist()}
