"""Fixtures: the shipped helper, by socket and by exec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Fields, Helper
from scene import (
    BINARIES,
    EMULATOR,
    ENVIRONMENT,
    MACHINE,
    Ask,
    ignored_signals,
)


@pytest.fixture
def helper(binary: Path, tmp_path: Path) -> Iterator[Helper]:
    made = Helper(binary, tmp_path / "state", EMULATOR)
    made.exec("boot")
    yield made
    if made.folder.exists():
        assert made.exec("stop")["word"] == b"done"


@pytest.fixture(scope="module")
def binary() -> Path:
    return BINARIES / f"sandbox-helper-{MACHINE}-linux"


@pytest.fixture(params=["socket", "exec"])
def ask(request: pytest.FixtureRequest, helper: Helper) -> Ask:
    """Asks both ways, with the same context."""

    def by_socket(verb: str, fields: Fields) -> dict[str, bytes]:
        context: Fields = {
            "env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            "cwd": str(helper.folder.parent),
            # What made these tests may have it ignored, which a plain command inherits.
            "ignored": ignored_signals(),
        }
        return helper.ask(verb, {**context, **fields})

    def by_exec(verb: str, fields: Fields) -> dict[str, bytes]:
        return helper.exec(verb, fields, env=ENVIRONMENT, cwd=helper.folder.parent)

    return by_socket if request.param == "socket" else by_exec
