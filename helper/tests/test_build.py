"""The committed binaries match the committed sources."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
BINARIES = FOLDER.parent / "src/sandbox_core/worker/commands/helper"


def source_hash() -> str:
    """The Makefile's: of the name and the content of each input."""
    lines = (FOLDER / "Makefile").read_text().splitlines()
    inputs = {"Makefile"}
    for line in lines:
        if line.startswith(("SOURCES :=", "HEADERS :=")):
            inputs.update(line.partition(":=")[2].split())
    content = b"".join(
        name.encode() + b"\n" + (FOLDER / name).read_bytes() for name in sorted(inputs)
    )
    return hashlib.sha256(content).hexdigest()[:16]


def test_every_source_is_an_input() -> None:
    text = (FOLDER / "Makefile").read_text()

    for path in [*FOLDER.glob("*.c"), *FOLDER.glob("*.h")]:
        assert re.search(rf"\b{re.escape(path.name)}\b", text), path.name


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_binaries_carry_the_hash_of_the_sources(machine: str) -> None:
    """If not: `make helper`, and commit what it has built."""
    binary = (BINARIES / f"sandbox-helper-{machine}-linux").read_bytes()

    assert source_hash() == (BINARIES / "HASH").read_text().strip()
    assert f" {source_hash()}\n".encode() in binary
    assert len(binary) < 100_000
    assert b"keeper:before" not in binary  # No faults are built in.
    assert str(FOLDER).encode() not in binary


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_they_say_who_they_are(machine: str) -> None:
    native = machine == os.uname().machine
    if not native and not shutil.which(f"qemu-{machine}-static"):
        pytest.skip(f"qemu-{machine}-static is not installed")
    command = [] if native else [f"qemu-{machine}-static"]

    done = subprocess.run(
        [*command, BINARIES / f"sandbox-helper-{machine}-linux", "--version"],
        capture_output=True,
        check=True,
    )

    assert f"sandbox-helper 1 {source_hash()}\n".encode() == done.stdout


@pytest.mark.skipif(not shutil.which("cc") or not shutil.which("make"), reason="no C compiler")
@pytest.mark.parametrize("target", ["unit", "fuzz"])
def test_the_units(target: str) -> None:
    """Under the sanitizers, and for a second only; `make -C helper check` does more."""
    done = subprocess.run(
        ["make", "-s", "-C", FOLDER, target, "FUZZ_SECONDS=1"], capture_output=True, check=False
    )

    if b"cannot find -lasan" in done.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert done.returncode == 0, done.stderr.decode()
