"""Each broken provider is detected by its own check: a kit that cannot fail proves nothing."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from contract.mutants import MUTANTS, RIGHT_STREAMS, TERMINALS_METHODS, Mutant

from sandbox_core.cli.scaffold import write_provider
from sandbox_core.testing.contract import (
    CHECKS,
    Backend,
    Check,
    Outcome,
    Subject,
    run_check,
)
from sandbox_core.testing.contract import fleet as kit_fleet

pytestmark = pytest.mark.mutants

BY_NAME = {check.name: check for check in CHECKS}

_METADATA = """\
Metadata-Version: 2.1
Name: sandbox-{name}
Version: 0.1.0
Requires-Dist: hypothesis
Requires-Dist: sandbox-core
"""


def _write(mutant: Mutant | None, name: str, folder: Path) -> str:
    """Write the provider of ``sandbox-core new``, with a fault in it; return its module."""
    write_provider(name, folder)
    source = folder / f"sandbox-{name}" / "src"
    (package,) = source.glob("sandbox_*")
    if mutant is not None:
        values = {"{name}": name, "{Title}": name.title().replace("-", "")}
        _change(package / mutant.file, mutant.old, mutant.new, values)
        _change(
            package / "client.py",
            "(RemoteSandboxSession):\n" if mutant.methods else "",
            f"(_Base):\n{mutant.methods}\n",
            {},
        )
        if mutant.without:
            (package / mutant.without).unlink()
    # What installing it would write.
    installed = source / f"{package.name}-0.1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(_METADATA.format(name=name))
    (installed / "entry_points.txt").write_text(
        f"[sandbox_core.providers]\n{name} = {package.name}\n"
    )
    sys.path.insert(0, str(source))
    return package.name


def _change(file: Path, old: str, new: str, values: dict[str, str]) -> None:
    if not old:
        return
    for mark, value in values.items():
        old, new = old.replace(mark, value), new.replace(mark, value)
    content = file.read_text()
    assert 1 == content.count(old), f"{old!r} is not once in {file.name}"
    if "(_Base)" in new:
        # The added methods come before those of the class, whose `super()` is the base.
        new = old + new.partition("\n")[2]
    file.write_text(content.replace(old, new))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = list(sys.path)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("MUTANT_KEY", "set")
    # A wrong provider takes all the time that it is given.
    monkeypatch.setattr(kit_fleet, "ENDS_S", 15.0)
    yield folder
    _kill_what_is_left_in(folder)
    sys.path[:] = path
    importlib.invalidate_caches()


def _kill_what_is_left_in(folder: Path) -> None:
    """Kill the processes that a wrong provider has left in its sandboxes."""
    for process in Path("/proc").glob("[0-9]*"):
        # Of other users, or gone meanwhile; a directory that is gone is marked behind its path.
        with suppress(OSError):
            if str((process / "cwd").readlink()).startswith(f"{folder}/"):
                os.kill(int(process.name), signal.SIGKILL)


async def _outcome(check: Check, module: str, name: str, home: Path, temporal: str) -> Outcome:
    provider = importlib.import_module(module).sandbox_client_provider()

    async def sandboxes() -> set[str]:
        return {path.stem for path in home.glob("*.json")}  # noqa: ASYNC240 - of a test

    async def stop(sandbox_id: str) -> None:
        (home / f"{sandbox_id}.stopped").touch()  # Seen only by wrong providers.

    backend = Backend(
        backend_ids=sandboxes,
        stop_sandbox=stop,
        unreachable={f"{name.replace('-', '_').upper()}_HOME": "/proc/nowhere"},
        timeout_s=20.0,
    )
    subject = Subject(provider=provider, module=module, backend=backend, temporal=temporal)
    async with subject:
        return await run_check(check, subject)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name.replace(" ", "-"))
async def test_the_check_finds_it(
    mutant: Mutant,
    tmp_path: Path,
    home: Path,
    temporal_address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And says what it has seen."""
    name = f"mutant-{MUTANTS.index(mutant)}"
    monkeypatch.setenv(f"{name.replace('-', '_').upper()}_HOME", str(home))
    module = _write(mutant, name, tmp_path)
    outcome = await _outcome(BY_NAME[mutant.check], module, name, home, temporal_address)

    assert "broken" == outcome.status, outcome
    assert outcome.seen


def test_every_check_finds_a_mutant() -> None:
    assert set(BY_NAME) == {mutant.check for mutant in MUTANTS}


async def test_the_right_provider_passes(
    tmp_path: Path, home: Path, temporal_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is generated keeps every promise that needs no worker."""
    name = "right"
    monkeypatch.setenv("RIGHT_HOME", str(home))
    module = _write(None, name, tmp_path)
    for check in (check for check in CHECKS if check.level != "durable"):
        outcome = await _outcome(check, module, name, home, temporal_address)

        assert outcome.status in ("kept", "skipped"), outcome


async def test_the_right_provider_with_terminals_passes(
    tmp_path: Path, home: Path, temporal_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the faults are put into keeps what is promised of terminals."""
    monkeypatch.setenv("RIGHT_TERMINALS_HOME", str(home))
    right = Mutant(name="none", check="", methods=TERMINALS_METHODS)
    module = _write(right, "right-terminals", tmp_path)
    for check in (check for check in CHECKS if check.name.startswith("terminals.")):
        outcome = await _outcome(check, module, "right-terminals", home, temporal_address)

        assert outcome.status == "kept", outcome


async def test_the_right_provider_with_streams_passes(
    tmp_path: Path, home: Path, temporal_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the faults are put into keeps what is promised of streams."""
    monkeypatch.setenv("RIGHT_STREAMS_HOME", str(home))
    module = _write(RIGHT_STREAMS, "right-streams", tmp_path)
    for check in (check for check in CHECKS if check.name.startswith("streams.")):
        outcome = await _outcome(check, module, "right-streams", home, temporal_address)

        assert outcome.status in ("kept", "skipped"), outcome
