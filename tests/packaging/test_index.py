"""What the README says works with what would be published, with plain pip, outside this tree.

`PACKAGING_TEST_DIST` names a folder of distributions, in place of those of this tree, and
`PACKAGING_TEST_PYTHONS` the interpreters, in place of the oldest and the newest that are here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from chaos_demo import LONGEST_S, assert_whole
from package_index import package_index
from readme import ANSWER, README, run_worker

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

_SUPPORTED = tuple(f"3.{minor}" for minor in range(10, 15))


def _oldest_and_newest() -> list[str]:
    """Return the interpreters of this machine to test with; each costs half a minute."""
    home = Path.home()
    installed = (
        Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions",
        Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local" / "share" / "uv" / "python")),
    )
    found = [python for version in _SUPPORTED if (python := _find(version, installed))]
    return list(dict.fromkeys([found[0], found[-1]])) if found else [sys.executable]


def _find(version: str, installed: Iterable[Path]) -> str | None:
    folders = (f"{prefix}{version}.*/bin/python" for prefix in ("", "cpython-"))
    candidates = (str(path) for each in folders for root in installed for path in root.glob(each))
    return next(filter(_works, (f"python{version}", *candidates)), None)


def _works(python: str) -> bool:
    """Return whether it can make environments; pyenv's commands may lead nowhere."""
    command = [python, "-c", "import ensurepip, venv"]
    return bool(
        shutil.which(python)
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


PYTHONS = os.environ.get("PACKAGING_TEST_PYTHONS", "").split() or _oldest_and_newest()


@pytest.fixture(scope="module")
def index(dist: Path) -> Iterator[str]:
    with package_index(dist) as url:
        yield url


@pytest.fixture(scope="module", params=PYTHONS)
def environment(
    request: pytest.FixtureRequest,
    index: str,
    tmp_path_factory: pytest.TempPathFactory,
    run: Callable[..., str],
) -> Path:
    """An environment in which pip has installed what the README says."""
    (command,) = re.findall(r"^pip (install .*)$", README.read_text(), re.MULTILINE)
    path = tmp_path_factory.mktemp("index") / "env"
    run(request.param, "-m", "venv", path)
    pip = (path / "bin" / "python", "-m", "pip", *shlex.split(command))
    run(*pip, "--quiet", "--no-compile", "--index-url", index, cwd=path)
    return path


def test_the_demo_survives_the_death_of_a_worker(environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [environment / "bin" / "sandbox-core", "demo", "--chaos"],
        cwd=tmp_path,
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    provider = "bubblewrap" if "bubblewrap-sandbox_exec" in done.stdout else "local"
    assert_whole(done.stdout, provider)


def test_the_worker_of_the_readme_runs(
    environment: Path, temporal_address: str, tmp_path: Path
) -> None:
    result = run_worker(environment / "bin" / "python", tmp_path, temporal_address)

    assert ANSWER == result.stdout, result.stderr
