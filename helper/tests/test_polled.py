"""Processes that are read from, written to, resized and signalled."""

from __future__ import annotations

from pathlib import Path

from driver import Fields, Helper
from scene import (
    Ask,
    running,
    shell,
    until,
)

pytest_plugins = ["helper_fixtures"]


class TestPolled:
    def test_the_same_offset_gives_the_same_bytes(self, ask: Ask, tmp_path: Path) -> None:
        script = (
            f"echo a; echo b >&2; until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo c; exit 3"
        )
        start = ask("start", shell(script, key="k", wait=0, number_min=5, number_max=6))
        until(lambda: b"a\nb\n" == ask("read", {"number": 5})["data"])
        (tmp_path / "go").touch()
        first = ask("read", {"number": 5, "from": 2, "wait": 20_000})
        again = ask("read", {"key": "k", "from": 2})

        assert (b"0", b"5") == (start["end"], start["number"])
        assert (b"b\nc\n", b"1", b"3") == (first["data"], first["end"], first["code"])
        assert (b"b\nc\n", b"1", b"3") == (again["data"], again["end"], again["code"])

    def test_a_read_that_waits_for_data_comes_back_with_the_first(self, helper: Helper) -> None:
        helper.ask("start", shell("sleep 0.2; echo a; sleep 60", key="k", wait=0))

        answer = helper.ask("read", {"key": "k", "wait": 10_000, "until": "data"})

        assert (b"a\n", b"0") == (answer["data"], answer["end"])

    def test_dropped_output_is_reported(self, helper: Helper) -> None:
        helper.ask("start", shell("seq 1 100000", key="k", out_max=1000))

        head = helper.ask("read", {"key": "k", "from": 0, "wait": 5000})
        until(lambda: b"running" not in helper.ask("list")["entry"])
        tail = helper.ask("read", {"key": "k", "from": head["next"].decode()})

        assert (b"0", b"500", b"0") == (head["at"], head["next"], head["end"])
        assert int(tail["at"]) == int(tail["total"]) - 500
        assert tail["data"].endswith(b"99999\n100000\n")
        assert b"1" == tail["end"]

    def test_chunks_of_any_size_make_the_whole(self, helper: Helper) -> None:
        helper.ask("start", shell("seq 1 3000", key="k"))
        whole, at, end = b"", 0, False
        while not end:
            answer = helper.ask("read", {"key": "k", "from": at, "max": 997, "wait": 5000})
            whole += answer["data"]
            at, end = int(answer["next"]), answer["end"] == b"1"

        assert b"".join(b"%d\n" % n for n in range(1, 3001)) == whole

    def test_both_streams_of_a_command_can_be_read_while_it_runs_and_afterwards(
        self, ask: Ask
    ) -> None:
        script = "echo out; echo err >&2; while test ! -e go; do sleep 0.01; done; echo more >&2"
        ask("run", shell(script, key="k", wait=0))
        wait: Fields = {"key": "k", "wait": 5000, "until": "data"}

        out, err = ask("read", wait), ask("read", {**wait, "stream": "err"})
        waiting = ask("read", {**wait, "from": 4, "stream": "err", "wait": 20})
        ask("run", shell("touch go", key="other", wait=5000))
        more = ask("read", {**wait, "from": 4, "stream": "err", "until": "end"})
        again = ask("read", {"key": "k", "stream": "err"})

        assert (b"out\n", b"0", None) == (out["data"], out["end"], out.get("stream"))
        assert (b"err\n", b"0", b"err") == (err["data"], err["end"], err["stream"])
        assert (b"", b"0") == (waiting["data"], waiting["end"])
        assert (b"more\n", b"1", b"err") == (more["data"], more["end"], more["stream"])
        assert (b"err\nmore\n", b"1", b"err") == (again["data"], again["end"], again["stream"])

    def test_a_write_is_written_once(self, ask: Ask) -> None:
        ask("start", shell("cat; echo end", key="k", stdin=1, wait=0))
        write: Fields = {"key": "k", "id": "w1", "data": "one\n", "wait": 2000, "until": "data"}

        first, again = ask("write", write), ask("write", write)
        last = ask("write", {"key": "k", "id": "w2", "eof": 1, "wait": 5000})
        late = ask("write", {"key": "k", "id": "w3", "data": "late"})

        assert (
            (b"one\n", b"1")
            == (first["data"], first["written"])
            == (again["data"], again["written"])
        )
        assert (b"one\nend\n", b"1") == (last["data"], last["end"])
        assert b"0" == late["written"]

    def test_more_input_than_is_read_is_refused_for_now(self, helper: Helper) -> None:
        helper.ask("start", shell("sleep 60", key="k", stdin=1, wait=0))
        answers = [
            helper.ask("write", {"key": "k", "id": f"w{n}", "data": "x" * 65_000})["written"]
            for n in range(20)
        ]

        assert (b"1", b"busy") == (answers[0], answers[-1])

    def test_a_process_without_stdin_takes_no_input(self, ask: Ask) -> None:
        ask("start", shell("sleep 60", key="k", wait=0))

        assert b"0" == ask("write", {"key": "k", "id": "w", "data": "x"})["written"]

    def test_a_terminal(self, ask: Ask) -> None:
        script = "stty size; test -t 0 && tty | cut -c1-8; read x; echo got $x; stty size"
        shown = b"30 100\r\n/dev/pts\r\n"
        ask("start", shell(script, key="k", tty=1, rows=30, cols=100, wait=0))
        until(lambda: shown == ask("read", {"key": "k"})["data"])

        assert b"done" == ask("resize", {"key": "k", "rows": 40, "cols": 120})["word"]
        answer = ask("write", {"key": "k", "id": "w", "data": "hi\n", "wait": 20_000,
                               "from": len(shown)})  # fmt: skip

        assert b"hi\r\ngot hi\r\n40 120\r\n" == answer["data"]
        assert (b"1", b"0") == (answer["end"], answer["code"])
        assert b"finished" == ask("resize", {"key": "k", "rows": 1, "cols": 1})["word"]

    def test_an_interrupt_through_the_terminal(self, ask: Ask) -> None:
        script = "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done"
        ask("start", shell(script, key="k", tty=1, wait=2000, until="data"))
        answer = ask("write", {"key": "k", "id": "w", "data": "\x03", "wait": 5000})

        assert (b"1", b"5") == (answer["end"], answer["code"])

    def test_signals(self, ask: Ask) -> None:
        script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done"
        ask("start", shell(script, key="k", wait=2000, until="data"))
        assert b"done" == ask("signal", {"key": "k", "signal": 10, "to": "process"})["word"]
        until(lambda: b"ready\nusr1\n" == ask("read", {"key": "k"})["data"])
        ask("signal", {"key": "k", "signal": 15})

        answer = ask("read", {"key": "k", "wait": 5000})

        assert (b"1", b"15") == (answer["end"], answer["signal"])

    def test_numbers_avoid_those_that_are_taken(self, helper: Helper) -> None:
        numbers = {
            int(
                helper.ask("start", shell("true", number_min=10, number_max=14, taken="11 12"))[
                    "number"
                ]
            )
            for _ in range(2)
        }

        assert {10, 13} == numbers
        full = helper.ask("start", shell("true", number_min=10, number_max=14, taken=["11", "12"]))
        assert (b"notrun", b"full") == (full["word"], full["why"])

    def test_end_started_ends_processes_only(self, helper: Helper) -> None:
        run = int(helper.ask("run", shell("sleep 60", wait=50))["pid"])
        start = int(helper.ask("start", shell("sleep 60", key="k", wait=50))["pid"])

        answer = helper.ask("end", {"which": "started", "reason": "terminated"})

        assert (b"1", b"0") == (answer["count"], answer["left"])
        assert running(run)
        assert not running(start)
        assert b"terminated" == helper.ask("read", {"key": "k"})["reason"]
