"""A relay carries requests and answers over its stdin and stdout, many at once."""

from __future__ import annotations

import base64
import os
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from driver import Fields, Helper, message, parse, parse_text
from scene import children, is_emulated, resident_set, running, shell, until

pytest_plugins = ["helper_fixtures"]

ENVIRONMENT = {"PATH": os.environ["PATH"], "GREETING": "hello"}
SOON_S = 60


class Relay:
    """One relay, and the answers that have come so far."""

    def __init__(self, helper: Helper, process: subprocess.Popen[bytes], context: str) -> None:
        self.helper, self.process, self.context = helper, process, context
        self.answers: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self._asked = 0
        self._came = b""

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def send(self, verb: str, fields: Fields | None = None) -> int:
        body = message({"verb": verb, **(fields or {})})
        return self.send_raw(len(body).to_bytes(4, "big") + body)

    def send_raw(self, frame: bytes) -> int:
        self._asked += 1
        self.stdin.write(self._asked.to_bytes(4, "big") + frame)
        self.stdin.flush()
        return self._asked

    def run(self, script: str, **fields: bytes | str | int | list[str]) -> int:
        return self.send("run", shell(script, **{"context": self.context, **fields}))

    def receive(self, number: int) -> dict[str, bytes] | None:
        """Wait for one answer; None if there is none."""
        while number not in self.ended:
            readable, _, _ = select.select([self.stdout], [], [], SOON_S)
            assert readable, "nothing comes"
            piece = os.read(self.stdout.fileno(), 1 << 20)
            assert piece, "the relay has ended"
            self._came += piece
            self._take()
        answer = self.answers[number]
        return parse(answer[4:]) if _is_whole(answer) else None

    def _take(self) -> None:
        while len(self._came) >= 8:
            number, size = (int.from_bytes(self._came[at : at + 4], "big") for at in (0, 4))
            if len(self._came) < 8 + size:
                return
            assert number not in self.ended
            answer = self.answers.get(number, b"") + self._came[8 : 8 + size]
            self.answers[number] = answer
            if not size or _is_whole(answer):
                self.ended.add(number)
            self._came = self._came[8 + size :]


def _is_whole(answer: bytes) -> bool:
    return len(answer) >= 4 and len(answer) == 4 + int.from_bytes(answer[:4], "big")


@contextmanager
def relaying(helper: Helper, cwd: Path) -> Iterator[Relay]:
    context, mark = uuid.uuid4().hex, uuid.uuid4().hex
    encoded = base64.urlsafe_b64encode(
        message({"dir": str(helper.folder), "mark": mark, "id": context})
    ).decode()
    with subprocess.Popen(
        [*helper.prefix, str(helper.binary), "relay", encoded],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd=cwd,
    ) as process:
        relay = Relay(helper, process, context)
        said = b""
        while not said.endswith(f"{mark} end\n".encode()):
            piece = os.read(relay.stdout.fileno(), 4096)
            assert piece, said
            said += piece
        assert b"done" == parse_text(said, mark)["word"]
        try:
            yield relay
        finally:
            process.kill()


@pytest.fixture
def relay(helper: Helper, tmp_path: Path) -> Iterator[Relay]:
    with relaying(helper, tmp_path) as made:
        yield made


class TestRequests:
    def test_a_command_inherits_what_the_relay_was_started_with(
        self, relay: Relay, tmp_path: Path
    ) -> None:
        answer = relay.receive(relay.run("echo $GREETING; pwd; cat; ls /proc/self/fd; exit 3"))

        assert answer is not None
        assert (b"exited", b"3") == (answer["word"], answer["code"])
        # The fourth is the folder that `ls` reads.
        assert f"hello\n{tmp_path}\n0\n1\n2\n3\n".encode() == answer["out"]

    def test_many_are_under_way_at_once(self, relay: Relay, tmp_path: Path) -> None:
        waiting = [relay.run(f"until [ -e go ]; do sleep 0.02; done; echo {n}") for n in range(60)]
        assert b"ready" == (relay.receive(relay.send("ping")) or {})["word"]
        (tmp_path / "go").touch()

        answers = [relay.receive(number) or {} for number in waiting]

        assert [b"%d\n" % n for n in range(60)] == [answer["out"] for answer in answers]

    @pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 65_528, 65_536, 5_000_000])
    def test_an_answer_of_any_size_is_whole(self, relay: Relay, size: int) -> None:
        script = f"head -c {size} /dev/zero | tr '\\0' x; printf '\\377\\0' >&2"

        answer = relay.receive(relay.run(script, out_max=size + 1)) or {}

        assert (b"x" * size, b"\xff\0") == (answer["out"], answer["err"])

    def test_a_request_of_any_size_is_passed_on(self, relay: Relay) -> None:
        words = ["w" * 100_000] * 18

        answer = relay.receive(
            relay.send("run", {"key": "k", "arg": ["printf", ".%.0s", *words], "wait": 9000,
                               "context": relay.context})
        )  # fmt: skip

        assert b"." * 18 == (answer or {})["out"]

    def test_an_empty_one_is_answered_by_the_relay_itself(self, relay: Relay) -> None:
        resident = int(relay.helper.ask("ping")["pid"])
        os.kill(resident, signal.SIGSTOP)
        try:
            assert relay.receive(relay.send_raw(bytes(4))) is None
        finally:
            os.kill(resident, signal.SIGCONT)

    def test_the_same_key_runs_once(self, relay: Relay, tmp_path: Path) -> None:
        script = "echo run >> runs; sleep 0.1; echo out"
        asked = [relay.run(script, key="k") for _ in range(5)]

        answers = [relay.receive(number) or {} for number in asked]

        assert [b"out\n"] * 5 == [answer["out"] for answer in answers]
        assert b"out\n" == relay.helper.exec("run", shell(script, key="k"))["out"]
        assert "run\n" == (tmp_path / "runs").read_text()

    def test_one_that_is_too_long_ends_it(self, relay: Relay) -> None:
        relay.send_raw((8 << 20 | 1).to_bytes(4, "big"))

        assert 0 == relay.process.wait(SOON_S)


class TestFaults:
    def test_killed_in_the_middle_of_a_command(self, helper: Helper, tmp_path: Path) -> None:
        """The command goes on, and its result is there for whoever asks next."""
        script = "echo run >> runs; until [ -e go ]; do sleep 0.02; done; echo out"
        with relaying(helper, tmp_path) as relay:
            relay.run(script, key="k")
            until((tmp_path / "runs").exists)
            relay.process.kill()
            relay.process.wait()
        (tmp_path / "go").touch()

        assert b"out\n" == helper.exec("run", shell(script, key="k"), env=ENVIRONMENT)["out"]
        assert "run\n" == (tmp_path / "runs").read_text()

    def test_the_resident_is_killed(self, relay: Relay, tmp_path: Path) -> None:
        """The command goes on; the next request makes another resident, without the context."""
        script = "echo run >> runs; until [ -e go ]; do sleep 0.02; done; echo out"
        asked = relay.run(script, key="k")
        until((tmp_path / "runs").exists)
        resident = int(relay.helper.ask("ping")["pid"])
        os.kill(resident, signal.SIGKILL)
        until(lambda: not running(resident))
        another = relay.receive(relay.run("true")) or {}
        (tmp_path / "go").touch()

        assert b"unknown-context" == another["word"]
        assert b"out\n" == (relay.receive(asked) or {})["out"]
        assert resident != int(relay.helper.ask("ping")["pid"])
        assert "run\n" == (tmp_path / "runs").read_text()

    def test_the_folder_is_removed(self, relay: Relay) -> None:
        assert b"done" == (relay.receive(relay.send("stop")) or {})["word"]

        assert b"unknown-context" == (relay.receive(relay.run("true")) or {})["word"]

    @pytest.mark.parametrize("how", ["close", "half"])
    def test_it_ends_with_stdin(self, relay: Relay, how: str) -> None:
        relay.stdin.close()
        if how == "close":
            relay.stdout.close()

        assert 0 == relay.process.wait(SOON_S)

    def test_what_is_under_way_when_stdin_ends_is_answered(
        self, relay: Relay, tmp_path: Path
    ) -> None:
        asked = relay.run("echo run > runs; until [ -e go ]; do sleep 0.02; done; echo out")
        until((tmp_path / "runs").exists)
        relay.stdin.close()
        (tmp_path / "go").touch()

        assert b"out\n" == (relay.receive(asked) or {})["out"]
        assert 0 == relay.process.wait(SOON_S)

    def test_what_was_not_passed_on_when_stdin_ends_never_runs(
        self, relay: Relay, tmp_path: Path
    ) -> None:
        """Whoever asked has given up, for example as the sandbox was paused."""
        os.kill(relay.process.pid, signal.SIGSTOP)
        relay.run("echo run > runs")
        relay.stdin.close()
        os.kill(relay.process.pid, signal.SIGCONT)

        assert 0 == relay.process.wait(SOON_S)
        assert b"" == relay.helper.ask("list").get("entry", b"")

    def test_it_ends_when_nobody_reads(self, relay: Relay) -> None:
        relay.stdout.close()

        assert 0 == relay.process.wait(SOON_S)

    def test_a_resident_that_does_not_know_the_verb_is_not_asked(self, relay: Relay) -> None:
        """A relay is a matter of its own binary: a resident of any version has contexts."""
        assert b"error" == relay.helper.ask("relay")["word"]


class TestBounds:
    @is_emulated
    def test_what_nobody_reads_costs_no_memory(self, relay: Relay) -> None:
        """The answers stay with those who give them."""
        asked = [relay.run("head -c 3000000 /dev/zero", out_max=3_000_000) for _ in range(10)]
        until(lambda: 10 == relay.helper.ask("list").get("entry", b"").count(b":ended:"))
        held = resident_set(relay.process.pid)

        sizes = [len((relay.receive(number) or {})["out"]) for number in asked]

        assert held < 2 << 20
        assert [3_000_000] * 10 == sizes

    @is_emulated
    def test_memory_for_a_long_request_is_given_back(self, relay: Relay) -> None:
        before = resident_set(relay.process.pid)
        relay.receive(relay.send("ping", {"unknown": b"x" * (7 << 20)}))

        assert resident_set(relay.process.pid) < before + (2 << 20)

    def test_more_than_it_takes_wait(self, relay: Relay, tmp_path: Path) -> None:
        fields: Fields = {"key": "k", "wait": 9000}
        relay.run("until [ -e go ]; do sleep 0.02; done", key="k", wait=0)
        asked = [relay.send("read", {**fields, "key": "k"}) for _ in range(300)]
        (tmp_path / "go").touch()

        assert all(number for number in asked)
        relay.receive(asked[-1])
        assert relay.receive(relay.send_raw(bytes(4))) is None


class TestInvisible:
    @is_emulated
    def test_a_command_finds_no_trace_of_it(self, relay: Relay) -> None:
        pid = relay.process.pid
        script = (
            f"tr '\\0' ' ' </proc/{pid}/cmdline; echo; cat /proc/{pid}/comm; "
            f"tr -d '\\0' </proc/{pid}/environ | wc -c"
        )
        answer = relay.receive(relay.run(script)) or {}

        assert ["sbx", "sbx", "0"] == answer["out"].decode().split()

    @is_emulated
    def test_it_is_nobodys_ancestor(self, helper: Helper, tmp_path: Path) -> None:
        """Not even of the resident that it has started."""
        helper.exec("stop")
        with relaying(helper, tmp_path) as relay:
            relay.receive(relay.run("true"))

            assert [] == children(relay.process.pid)
            resident = int(helper.ask("ping")["pid"])
            held = {str(path.readlink()) for path in Path(f"/proc/{resident}/fd").iterdir()}
            assert not any("pipe" in name for name in held)

    @is_emulated
    def test_it_costs_nothing_while_it_waits(self, relay: Relay) -> None:
        stat = Path(f"/proc/{relay.process.pid}/stat")
        before = stat.read_text().rpartition(")")[2].split()[11:13]
        time.sleep(0.5)  # Between two samples.

        assert before == stat.read_text().rpartition(")")[2].split()[11:13]
