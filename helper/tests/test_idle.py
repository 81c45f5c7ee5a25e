"""A resident that nobody needs leaves, and the next one goes on with what it knew."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from driver import Helper, NoAnswer
from scene import is_emulated, running, shell, until

FOLDER = Path(__file__).parents[1]
IDLE_S = 0.3

pytestmark = is_emulated


pytest_plugins = ["helper_fixtures"]


@pytest.fixture(scope="module")
def binary() -> Path:
    """A helper whose resident leaves after `IDLE_S`, not after ten minutes."""
    if not shutil.which("cc") or not shutil.which("make"):
        pytest.skip("no C compiler")
    subprocess.run(["make", "-s", "-C", FOLDER, "build/hasty"], check=True)
    return FOLDER / "build/hasty"


def resident(helper: Helper) -> int:
    return int(helper.exec("ping")["pid"])


def connected(helper: Helper) -> socket.socket:
    """Return a connection to a resident, which a client makes if the last one has just left."""
    while True:
        resident(helper)
        with suppress(FileNotFoundError, ConnectionError):
            return helper.connect()


def test_it_leaves_and_its_records_stay(helper: Helper, tmp_path: Path) -> None:
    command = shell(f"echo run >>{tmp_path}/runs; echo done")
    answer = helper.exec("run", command)
    first = resident(helper)

    until(lambda: not running(first))

    assert not (helper.folder / "sock").exists()
    assert answer == helper.exec("run", command)
    assert (tmp_path / "runs").read_text() == "run\n"
    assert resident(helper) != first


def test_it_stays_with_what_a_command_has_left_behind(helper: Helper, tmp_path: Path) -> None:
    left = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    helper.exec("run", shell(f"{{ {left}; }} >/dev/null 2>&1 &"))
    first = resident(helper)

    time.sleep(IDLE_S * 3)  # Nothing happens, which no event tells.
    assert running(first)
    (tmp_path / "go").touch()
    until(lambda: not running(first))


def test_it_stays_for_a_connection(helper: Helper) -> None:
    with connected(helper):
        first = resident(helper)
        time.sleep(IDLE_S * 3)  # Nothing happens, which no event tells.
        assert running(first)

    until(lambda: not running(first))


def test_it_stays_if_only_its_memory_has_a_key(helper: Helper) -> None:
    first, command = resident(helper), shell("echo done")
    helper.exec("run", command)
    (helper.folder / str(command["key"])).unlink()

    time.sleep(IDLE_S * 3)  # Nothing happens, which no event tells.

    assert resident(helper) == first
    assert helper.exec("run", command)["word"] == b"lost"


def test_a_dropped_key_stays_dropped(helper: Helper) -> None:
    first, command = resident(helper), shell("echo done")
    helper.exec("run", command)
    helper.exec("drop", {"key": str(command["key"])})

    until(lambda: not running(first))

    assert helper.exec("run", command)["word"] == b"dropped"


def test_requests_while_it_leaves_are_answered_once(helper: Helper, tmp_path: Path) -> None:
    residents = set()
    gone_after = IDLE_S + 0.1  # Its keeper rests at first.
    for number in range(20):
        time.sleep(gone_after - 0.01 + number / 1000)  # Around the moment at which it leaves.
        command = shell(f"echo {number} >>{tmp_path}/runs; echo $PPID")
        # Only a client makes a new resident: one of the two starts the command, once.
        with suppress(NoAnswer, FileNotFoundError, ConnectionError):
            helper.ask("run", command)
        assert helper.exec("run", command)["word"] == b"exited"
        residents.add(resident(helper))

    assert (tmp_path / "runs").read_text().split() == [str(number) for number in range(20)]
    assert 1 < len(residents)
