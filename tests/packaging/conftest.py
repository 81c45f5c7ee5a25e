"""Made once per run: a copy of the tree, the wheels and sdists, and environments."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SANDBOX_CORE_")}
    done = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def _build(source: Path, target: Path) -> None:
    """Build the wheel and the sdist of a folder, each from the folder itself."""
    _run("uv", "build", "--quiet", "--sdist", "--wheel", "--out-dir", target, source)


def _create(environment: Path, *wheels: Path) -> None:
    _run("uv", "venv", "--quiet", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    _run("uv", "pip", "install", "--quiet", "--python", python, *wheels)


@pytest.fixture(scope="session")
def run() -> Callable[..., str]:
    """Runs a command that has to succeed and returns what it writes to its standard output."""
    return _run


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes the file or folder of a name once, for all workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_once(name: str, make: Callable[[Path], None]) -> Path:
        target, made = shared / name, shared / f"{name}.made"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(target, ignore_errors=True)  # Left by one that failed.
                make(target)
                made.touch()
        return target

    return make_once


@pytest.fixture(scope="session")
def tree(once: Callable[..., Path]) -> Path:
    """A copy of the working tree: what git tracks, and what it would with the next commit."""

    def copy(target: Path) -> None:
        listed = _run("git", "ls-files", "-zco", "--exclude-standard", cwd=ROOT)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target / name)

    return once("tree", copy)


@pytest.fixture(scope="session")
def dist(once: Callable[..., Path], tree: Path) -> Path:
    """What `make dist` makes and checks: the wheels and sdists of the core and of every plugin.

    `PACKAGING_TEST_DIST` names a folder in which they are already.
    """
    if made := os.environ.get("PACKAGING_TEST_DIST"):
        return Path(made).resolve()
    script = tree / "release" / "dist.py"
    return once("dist", lambda target: _run(sys.executable, script, "--out", target) and None)


@pytest.fixture(scope="session")
def installed(once: Callable[..., Path], dist: Path) -> Path:
    """An environment with all the wheels of this tree."""
    return once("installed", lambda path: _create(path, *dist.glob("*.whl")))


@pytest.fixture(scope="session")
def pip_installed(once: Callable[..., Path], dist: Path, tree: Path) -> Path:
    """An environment in which pip has installed the core and the local plugin from their source.

    What they depend on is already there.
    """

    def make(path: Path) -> None:
        source = shutil.copytree(tree, path / "source")
        _create(path / "env", *dist.glob("sandbox_core-*.whl"))
        _run("uv", "pip", "uninstall", "--python", path / "env", "sandbox-core")
        pip = (sys.executable, "-m", "pip", "--python", path / "env" / "bin" / "python")
        _run(*pip, "install", "--quiet", "--no-deps", ".", "./plugins/sandbox-local", cwd=source)

    return once("pip-installed", make) / "env"


@pytest.fixture(scope="session")
def echo_dist(once: Callable[..., Path], tree: Path) -> Path:
    """The folder with the wheel of acme-sandbox-echo, built where nothing of this tree is near."""

    def build(target: Path) -> None:
        source = tree / "tests" / "packaging" / "acme-sandbox-echo"
        _build(shutil.copytree(source, target / "source"), target)

    return once("echo-dist", build)


@pytest.fixture(scope="session")
def echo_installed(once: Callable[..., Path], dist: Path, echo_dist: Path) -> Path:
    """An environment with the core and acme-sandbox-echo, and nothing else of this tree."""
    wheels = (*dist.glob("sandbox_core-*.whl"), *echo_dist.glob("*.whl"))
    return once("echo-installed", lambda path: _create(path, *wheels))
