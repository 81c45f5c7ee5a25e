"""A keeper whose command has left nothing behind runs the next one, undetectably."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Fields, Helper, NoAnswer
from scene import BINARIES, EMULATOR, MACHINE, children, needs_reaping, running, until


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Helper]:
    made = Helper(BINARIES / f"sandbox-helper-{MACHINE}-linux", tmp_path / "state", EMULATOR)
    made.exec("boot")
    yield made
    if made.folder.exists():
        assert made.exec("stop")["word"] == b"done"


def shell(script: str, **fields: bytes | str | int | list[str]) -> Fields:
    environment = [f"PATH={os.environ['PATH']}"]
    command: Fields = {"key": uuid.uuid4().hex, "arg": ["sh", "-c", script], "wait": 20_000}
    return {**command, "env": environment, **fields}


def resident(helper: Helper) -> int:
    return int(helper.ask("ping")["pid"])


def rested(helper: Helper, script: str = "true") -> int:
    """Run a command to its end, and return the keeper that waits for the next."""
    assert helper.ask("run", shell(script))["word"] == b"exited"
    until(lambda: helper.ask("ping")["live"] == b"0")
    (keeper,) = children(resident(helper))
    return keeper


def keeper_of(helper: Helper, **fields: bytes | str | int | list[str]) -> int:
    """Run a command once the last keeper rests, and return the keeper that it had."""
    until(lambda: helper.ask("ping")["live"] == b"0")
    return int(helper.ask("run", shell("echo $PPID", **fields))["out"])


def test_it_takes_the_next_command(helper: Helper) -> None:
    keeper = rested(helper)

    assert [keeper] * 3 == [keeper_of(helper) for _ in range(3)]


def test_nothing_of_the_last_command_is_left(helper: Helper) -> None:
    environment = [f"PATH={os.environ['PATH']}", "SECRET=1"]
    last = shell("yes | head -c 100000; yes | head -c 100000 >&2", out_max=1000, env=environment)
    assert helper.ask("run", last)["out_total"] == b"100000"

    answer = helper.ask("run", shell("yes | head -c 100001; echo $SECRET >&2; exit 3"))

    assert (b"3", b"\n") == (answer["code"], answer["err"])
    assert (b"100001", b"1") == (answer["out_total"], answer["err_total"])
    assert len(answer["out"]) == 100_001


def test_the_timeout_of_the_last_command_is_gone(helper: Helper) -> None:
    helper.ask("run", shell("true", timeout=300))

    assert helper.ask("run", shell("sleep 0.6"))["word"] == b"exited"


def test_a_context_is_the_command_s_own(helper: Helper) -> None:
    helper.ask("context", {"id": "c", "env": ["PATH=/bin:/usr/bin", "A=context"], "cwd": "/usr"})
    keeper = rested(helper)
    command: Fields = {"arg": ["sh", "-c", "echo $PPID $A; pwd"], "wait": 20_000, "context": "c"}

    plain = helper.ask("run", {"key": "plain", **command})
    until(lambda: helper.ask("ping")["live"] == b"0")
    replaced = helper.ask("run", {"key": "replaced", **command, "cwd": "/"})

    assert f"{keeper} context\n/usr\n".encode() == plain["out"]
    assert f"{keeper} context\n/\n".encode() == replaced["out"]


def test_one_with_a_process_left_behind_does_not_rest(helper: Helper) -> None:
    answer = helper.ask("run", shell("sleep 60 >/dev/null 2>&1 & echo $PPID"))

    assert answer["out"] != helper.ask("run", shell("echo $PPID"))["out"]


def test_one_whose_command_was_ended_does_not_rest(helper: Helper) -> None:
    keeper = rested(helper)
    answer = helper.ask("run", shell("sleep 60", timeout=300))

    assert (b"ended", b"timeout") == (answer["word"], answer["reason"])
    assert keeper != keeper_of(helper)


def test_commands_at_once_have_one_each(helper: Helper, tmp_path: Path) -> None:
    rested(helper)
    meet = f"touch {tmp_path}/here-$$; until [ -e {tmp_path}/all ]; do sleep 0.02; done"
    asked = [helper.send("run", shell(f"echo $PPID; {meet}")) for _ in range(4)]
    until(lambda: len(list(tmp_path.glob("here-*"))) == 4)
    (tmp_path / "all").touch()

    keepers = {helper.receive(connection)["out"] for connection in asked}

    assert len(keepers) == 4
    until(lambda: len(children(resident(helper))) == 1)


def test_a_command_that_is_too_large_for_it_has_another(helper: Helper) -> None:
    keeper = rested(helper)

    assert keeper != keeper_of(helper, context_is_ignored="x" * 100_000)


def test_a_terminal_has_another(helper: Helper) -> None:
    keeper = rested(helper)

    answer = helper.ask("start", shell("echo $PPID", tty=1))

    assert keeper != int(answer["data"])


def test_a_repeated_request_gets_the_record(helper: Helper, tmp_path: Path) -> None:
    command = shell(f"echo run >>{tmp_path}/runs; echo $PPID")
    first = helper.ask("run", command)
    keeper_of(helper)

    assert first == helper.ask("run", command)
    assert (tmp_path / "runs").read_text() == "run\n"


def test_killed_at_rest(helper: Helper) -> None:
    keeper = rested(helper)

    os.kill(keeper, signal.SIGKILL)
    until(lambda: not running(keeper))

    assert keeper_of(helper) != keeper


def test_killed_with_its_second_command(helper: Helper) -> None:
    keeper = rested(helper)
    command = shell("sleep 60")
    connection = helper.send("run", command)
    until(lambda: len(children(keeper)) == 1)
    (child,) = children(keeper)

    os.kill(keeper, signal.SIGKILL)

    with pytest.raises(NoAnswer):
        helper.receive(connection)
    assert helper.ask("run", command)["word"] == b"lost"
    until(lambda: EMULATOR or not running(child))


def test_its_second_command_outlives_the_resident(helper: Helper) -> None:
    keeper = rested(helper)
    command = shell("sleep 1; echo $PPID")
    connection = helper.send("run", command)
    until(lambda: len(children(keeper)) == 1)

    os.kill(resident(helper), signal.SIGKILL)
    helper.exec("boot")

    assert int(helper.receive(connection)["out"]) == keeper
    assert int(helper.ask("run", command)["out"]) == keeper


def test_it_goes_with_its_resident(helper: Helper) -> None:
    keeper = rested(helper)

    os.kill(resident(helper), signal.SIGKILL)

    until(lambda: not running(keeper))


@needs_reaping
def test_stop_leaves_none(helper: Helper) -> None:
    keeper = rested(helper)

    assert helper.ask("stop")["word"] == b"done"

    assert not running(keeper)


def test_it_does_not_rest_for_long(helper: Helper) -> None:
    rested(helper)

    until(lambda: children(resident(helper)) == [])


def test_ending_all_does_not_wait_for_it(helper: Helper) -> None:
    keeper = rested(helper)

    answer = helper.ask("end", {"which": "all", "reason": "test"})

    assert (b"done", b"0") == (answer["word"], answer["count"])
    assert keeper_of(helper) == keeper
