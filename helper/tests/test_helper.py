"""The helper as it is shipped: asked by socket and by exec, beside the plain call."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from driver import Fields, Helper, NoAnswer

BINARIES = Path(__file__).parents[2] / "src/sandbox_core/worker/commands/helper"
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/root", "GREETING": "hello", "a.b-c": "kept"}

Ask = Callable[[str, Fields], dict[str, bytes]]


def shell(script: str, **fields: bytes | str | int | list[str]) -> Fields:
    return {"key": uuid.uuid4().hex, "arg": ["sh", "-c", script], "wait": 20_000, **fields}


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.01)


def line_of(path: Path) -> str:
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().strip()


MACHINE = os.environ.get("SANDBOX_HELPER_MACHINE", os.uname().machine)
"""The other architecture's binary is tested under qemu, if this names it."""

EMULATOR: list[str] = [] if os.uname().machine == MACHINE else [f"qemu-{MACHINE}-static"]


needs_reaping = pytest.mark.skipif(
    bool(EMULATOR), reason="qemu does not pass PR_SET_CHILD_SUBREAPER on: orphans are not found"
)
is_emulated = pytest.mark.skipif(
    bool(EMULATOR), reason="qemu itself is seen: its name, its memory, its signals"
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


def ignored_signals() -> int:
    status = Path("/proc/self/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    # Python ignores these itself, and resets them for its children.
    return ignored & ~sum(1 << (n - 1) for n in (signal.SIGPIPE, signal.SIGXFSZ))


def bare(script: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        env=ENVIRONMENT,
        cwd=cwd,
        check=False,
    )


AS_BARE = {
    "nothing": "true",
    "both streams": "echo out; echo err >&2",
    "a code": "exit 7",
    "the largest code": "exit 255",
    "killed": "kill -9 $$",
    "terminated": "echo out; kill -TERM $$",
    "interrupted": "kill -INT $$",
    "a broken pipe": "kill -PIPE $$",
    "a crash": "ulimit -c 0; kill -SEGV $$",
    "a realtime signal": "kill -40 $$",
    "binary": "printf '\\000\\001\\377\\376\\r\\n'; printf '\\200' >&2",
    "text": "printf 'h\\303\\244\\342\\202\\254\\t\\n'",
    "overlong and surrogates": "printf '\\300\\200\\355\\240\\200\\302\\205'",
    "no newline": "printf abc",
    "only newlines": "printf '\\n\\n\\n'",
    "stdin": "cat; ls -l /proc/self/fd/0 | sed 's/.*->//'",
    "descriptors": "ls /proc/self/fd",
    "environment": "env | sort",
    "the whole environment": "tr '\\0' '\\n' </proc/self/environ | sort",
    "working directory": "pwd; echo $PWD $OLDPWD",
    "umask": "umask",
    "limits": "ulimit -a; ulimit -H -a",
    "signals": "grep Sig[IB] /proc/self/status",
    "session": "set -- $(cat /proc/$$/stat); [ $1 = $5 ] && [ $1 = $6 ] && echo leader $7",
    "niceness": "nice; cat /proc/self/oom_score_adj",
    "privileges": "grep -E 'NoNewPrivs|Cap|Groups|Seccomp' /proc/self/status",
    "background": "(sleep 0.2; echo late) & echo early",
    "a session of its own": "setsid sh -c 'sleep 0.2; echo late' & echo early",
    "reopened output": "echo a; echo b >/dev/stdout; echo c",
    "kill 0": "trap 'echo body; exit 3' TERM; kill 0",
    "kill 0 on exit": "trap 'kill 0' EXIT; echo body",
    "kill its group": "echo body; kill -- -$$",
    "pkill nobody": "pkill -f 'no-such-[p]attern --port 5173'; echo $?",
    "pgrep itself": "pgrep -f 'unmistakable-[w]ord' | wc -l",
    "a missing program": "no-such-program",
    "a syntax error": "(",
    "wait": "sleep 0.1 & wait; echo $?",
    "many lines": "seq 1 20000",
    "a stopped child": "sh -c 'kill -STOP $$' & sleep 0.1; kill -CONT $!; wait; echo $?",
    "dumpable": "stat -c %u /proc/self/environ; cat /proc/self/timerslack_ns",
    "not a sub-reaper": "(sleep 0.1 & echo) ; sleep 0.2; ps -o stat= --ppid $$ | grep -c Z",
}


class TestAsBare:
    """A command cannot tell, and its result does not."""

    @pytest.mark.parametrize("script", AS_BARE.values(), ids=AS_BARE)
    def test_it_is_the_same(self, helper: Helper, ask: Ask, script: str) -> None:
        if EMULATOR and "-40" in script:
            pytest.skip("qemu has other realtime signals")
        plain = bare(script, helper.folder.parent)

        answer = ask("run", shell(script))

        code = -int(answer["signal"]) if "signal" in answer else int(answer["code"])
        assert (plain.returncode, plain.stdout, plain.stderr) == (
            code,
            answer["out"],
            answer["err"],
        )

    @pytest.mark.parametrize("script", ["exit 7", "kill -9 $$", "kill -TERM $$", "kill -40 $$"])
    def test_a_client_that_mimics_exits_as_the_command_did(
        self, helper: Helper, script: str
    ) -> None:
        done, _ = helper.exec_raw("run", shell(script, mimic=1))

        assert bare(script, helper.folder.parent).returncode == done.returncode

    @is_emulated
    def test_nothing_of_ours_has_a_name_that_is_worth_killing(self, helper: Helper) -> None:
        answer = helper.exec(
            "run",
            shell(
                "tr '\\0' ' ' </proc/$PPID/cmdline; cat /proc/$PPID/comm; cat /proc/$PPID/environ"
            ),
            env={**ENVIRONMENT, "SECRET": "sesame"},
        )

        assert b"sbxsbx" == answer["out"].translate(None, b" \0\n")

    @is_emulated
    def test_a_parent_that_is_sent_signals_does_not_mind(self, ask: Ask) -> None:
        script = (
            "for s in $(seq 1 64); do case $s in 9|19) ;; *) kill -$s $PPID;; esac; done; echo on"
        )

        answer = ask("run", shell(script))

        assert (b"exited", b"on\n") == (answer["word"], answer["out"])

    def test_a_command_that_outlives_its_client_goes_on(self, helper: Helper) -> None:
        first = helper.ask("run", shell("sleep 0.3; echo done", key="slow", wait=10))
        again = helper.ask("run", shell("echo another", key="slow"))

        assert (b"running", b"done\n") == (first["word"], again["out"])


class TestNotRun:
    """What cannot be started has not run, and its key is as new."""

    @pytest.mark.parametrize(
        ("arg", "cwd", "why", "errno"),
        [
            (["no-such-program"], "/", b"missing", b"2"),
            (["/no/such/program"], "/", b"missing", b"2"),
            ([""], "/", b"missing", b"2"),
            (["/etc/passwd"], "/", b"denied", b"13"),
            (["/etc"], "/", b"denied", b"13"),
            (["true"], "/no/such/folder", b"nocwd", b"2"),
            (["./garbage"], None, b"exec", b"8"),
            (["true", "x" * 200_000], "/", b"exec", b"7"),
        ],
    )
    @pytest.mark.parametrize("verb", ["run", "start"])
    def test_it_says_why(
        self, helper: Helper, verb: str, arg: list[str], cwd: str | None, why: bytes, errno: bytes
    ) -> None:
        garbage = helper.folder.parent / "garbage"
        garbage.write_bytes(b"\x00garbage")
        garbage.chmod(0o755)
        fields: Fields = {"key": "k", "arg": arg, "cwd": cwd or str(garbage.parent)}

        answer = helper.ask(verb, fields)

        assert {"word": b"notrun", "why": why, "errno": errno} == answer
        assert b"exited" == helper.ask("run", shell("true", key="k"))["word"]

    def test_a_context_that_is_unknown_is_asked_for(self, helper: Helper) -> None:
        request = shell("echo $X; pwd; umask", context="c1")

        unknown = helper.ask("run", request)
        helper.exec("context", {"id": "c1"}, env={"X": "of the context"}, cwd="/usr")
        known = helper.ask("run", request)
        other = helper.ask("run", shell("echo $X; pwd", context="c1", cwd="/", env="X=own"))

        assert b"unknown-context" == unknown["word"]
        assert b"of the context\n/usr\n0022\n" == known["out"]
        assert b"own\n/\n" == other["out"]

    def test_only_so_many_contexts_are_kept(self, helper: Helper) -> None:
        for n in range(70):
            helper.ask("context", {"id": f"c{n}", "cwd": "/"})
            helper.ask("run", shell("true", context="c0"))

        assert b"64" == helper.ask("ping")["contexts"]
        assert b"exited" == helper.ask("run", shell("true", context="c0"))["word"]
        assert b"unknown-context" == helper.ask("run", shell("true", context="c1"))["word"]


class TestOnce:
    """The key is the lock."""

    def test_eight_cold_clients_make_one_resident_and_one_run(
        self, binary: Path, tmp_path: Path
    ) -> None:
        helper = Helper(binary, tmp_path / "cold", EMULATOR)
        request = shell(f"echo run >> {tmp_path}/runs; sleep 0.2; echo $$")

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: helper.exec("run", request), range(8)))

        assert 1 == len({answer["out"] for answer in answers})
        assert "run\n" == (tmp_path / "runs").read_text()
        assert b"1" == helper.exec("ping")["records"]
        helper.exec("stop")

    def test_a_key_that_was_ended_unused_never_runs(self, ask: Ask, tmp_path: Path) -> None:
        ended = ask("end", {"key": "k", "reason": "cancelled"})
        answer = ask("run", shell(f"touch {tmp_path}/ran", key="k"))

        for told in (ended, answer):
            assert (b"ended", b"cancelled", b"1") == (told["word"], told["reason"], told["never"])
        assert not (tmp_path / "ran").exists()

    def test_a_dropped_record_is_not_run_again(self, ask: Ask) -> None:
        ask("run", shell("true", key="k"))

        assert b"1" == ask("drop", {"key": "k"})["count"]
        assert b"dropped" == ask("run", shell("true", key="k"))["word"]
        assert b"1" == ask("drop", {"key": "k", "mark_gone": 0})["count"]
        assert b"exited" == ask("run", shell("true", key="k"))["word"]

    def test_a_key_without_a_mark_is_free_whoever_still_keeps_its_tree(self, ask: Ask) -> None:
        """A keeper lives for a moment after its answer, and as long as its tree does."""
        pid = int(ask("run", shell("sleep 60 >/dev/null 2>&1 & echo $!", key="k"))["out"])

        assert b"1" == ask("drop", {"key": "k", "mark_gone": 0})["count"]
        assert b"second\n" == ask("run", shell("echo second", key="k"))["out"]
        assert running(pid)
        ask("end", {"which": "all", "reason": "test"})
        assert not running(pid)

    def test_what_runs_is_not_dropped(self, ask: Ask) -> None:
        ask("run", shell("sleep 60", key="k", wait=0))

        assert b"0" == ask("drop", {"key": "k"})["count"]
        assert b"ended" == ask("end", {"key": "k", "reason": "test"})["word"]

    def test_prune_keeps_the_newest(self, helper: Helper) -> None:
        for n in range(6):
            helper.ask("run", shell("echo 1234567", key=f"k{n}"))
            time.sleep(0.002)  # The clock of the records has milliseconds.

        assert b"3" == helper.ask("prune", {"keep": 3, "keep_bytes": 1 << 20})["count"]
        assert b"2" == helper.ask("prune", {"keep": 9, "keep_bytes": 0, "keep_always": 1})["count"]
        states = {
            entry.split(b":")[0]: entry.split(b":")[2]
            for entry in helper.ask("list")["entry"].split()
        }
        assert b"ended" == states.pop(b"k5")
        assert {b"dropped"} == set(states.values())
        helper.ask("prune", {"keep": 9, "keep_gone": 2})
        assert 2 == len(list(helper.folder.glob("*.gone")))


TREE = (
    "sleep 61 & echo $! >> {0}; (sleep 62 & echo $! >> {0}); "
    "setsid sh -c 'echo $$ >> {0}; exec sleep 63' >/dev/null 2>&1 & "
    "nohup sh -c 'echo $$ >> {0}; exec sleep 64' >/dev/null 2>&1 <&- & "
    "(setsid sh -c '(setsid sleep 65 & echo $! >> {0}) & wait' >/dev/null 2>&1 &) ; "
    "sleep 0.2; echo $$ >> {0}; echo ready > {1}; {2}"
)


LOOKS_S = 1.0
"""A keeper has noted by then who has come to it early on."""


class TestTrees:
    def start_tree(self, tmp_path: Path, then: str) -> str:
        return TREE.format(tmp_path / "pids", tmp_path / "ready", then)

    def pids(self, tmp_path: Path) -> list[int]:
        line_of(tmp_path / "ready")
        return [int(pid) for pid in (tmp_path / "pids").read_text().split()]

    @needs_reaping
    def test_a_timeout_ends_all_of_it(self, ask: Ask, tmp_path: Path) -> None:
        answer = ask("run", shell(self.start_tree(tmp_path, "sleep 66"), timeout=700))

        assert (b"ended", b"timeout") == (answer["word"], answer["reason"])
        assert 600 < int(answer["wall"]) < 3000
        pids = self.pids(tmp_path)
        assert 6 == len(pids)
        assert not any(map(running, pids))

    @needs_reaping
    def test_end_ends_all_of_it(self, ask: Ask, helper: Helper, tmp_path: Path) -> None:
        connection = helper.send("run", shell(self.start_tree(tmp_path, "sleep 66"), key="k"))
        pids = self.pids(tmp_path)

        answer = ask("end", {"key": "k", "reason": "cancelled"})

        assert (b"ended", b"0") == (answer["word"], answer["left"])
        assert not any(map(running, pids))
        assert b"cancelled" == helper.receive(connection)["reason"]
        assert b"cancelled" == ask("end", {"key": "k", "reason": "another"})["reason"]

    @needs_reaping
    def test_what_a_finished_command_left_behind_lives_until_all_is_ended(
        self, helper: Helper, tmp_path: Path
    ) -> None:
        script = f"sleep 67 >/dev/null 2>&1 & echo $! > {tmp_path}/pid; echo out"
        answer = helper.ask("run", shell(script, key="k"))
        pid = int(line_of(tmp_path / "pid"))

        assert (
            b"exited" == helper.ask("end", {"key": "k", "reason": "late"})["word"] == answer["word"]
        )
        assert running(pid)
        helper.ask("end", {"which": "started", "reason": "test"})
        assert running(pid)
        assert b"0" == helper.ask("end", {"which": "all", "reason": "test"})["left"]
        assert not running(pid)

    @needs_reaping
    def test_who_forks_faster_than_we_look_is_ended_too(
        self, helper: Helper, tmp_path: Path
    ) -> None:
        # Each generation lives for a moment, and there is one at a time.
        (tmp_path / "again").write_text(f"#!/bin/sh\n[ -e {tmp_path}/stop ] || setsid $0 &\n")
        (tmp_path / "again").chmod(0o755)
        try:
            answer = helper.ask("run", shell(f"{tmp_path}/again; sleep 60", timeout=300))
        finally:
            (tmp_path / "stop").touch()

        assert (b"ended", b"timeout") == (answer["word"], answer["reason"])
        assert int(answer["wall"]) < 4000  # It was caught, not given up.
        until(lambda: helper.ask("ping")["live"] == b"0")

    def test_no_zombie_stays(self, helper: Helper) -> None:
        for _ in range(20):
            helper.exec("run", shell("(true &) ; true"))
        resident = int(helper.ask("ping")["pid"])

        zombies = bare(f"ps -o stat= --ppid {resident},{os.getpid()} | grep -c Z", Path("/"))

        assert b"0\n" == zombies.stdout

    def test_stop_leaves_nothing(self, helper: Helper, tmp_path: Path) -> None:
        helper.ask("run", shell("sleep 68 >/dev/null 2>&1 & true"))
        helper.ask("run", shell(f"echo $$ > {tmp_path}/pid; sleep 69", wait=0))
        pid, resident = int(line_of(tmp_path / "pid")), int(helper.ask("ping")["pid"])

        assert b"done" == helper.ask("stop")["word"]

        assert not helper.folder.exists()
        until(lambda: not running(resident))
        assert not running(pid)


class TestBounds:
    def test_head_and_tail_are_kept(self, ask: Ask) -> None:
        answer = ask("run", shell("seq 1 100000; echo e >&2", out_max=1000))

        whole = b"".join(b"%d\n" % n for n in range(1, 100_001))
        assert len(whole) == int(answer["out_total"])
        assert whole[:500] + whole[-500:] == answer["out"]
        assert (b"500", b"e\n") == (answer["out_head"], answer["err"])

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65_536, 1 << 20, (1 << 20) + 1])
    def test_output_of_any_size_comes_back(self, helper: Helper, size: int) -> None:
        answer = helper.exec("run", shell(f"head -c {size} /dev/zero"))

        assert size == int(answer["out_total"])
        assert min(size, 1 << 20) == len(answer["out"])

    @is_emulated
    def test_endless_output_costs_constant_memory_and_no_disk(self, helper: Helper) -> None:
        connection = helper.send("run", shell("yes", timeout=2000, key="k"))
        until(lambda: b"1" == helper.ask("ping")["live"])
        (keeper,) = children(int(helper.ask("ping")["pid"]))
        sizes = []
        for _ in range(15):
            time.sleep(0.1)
            sizes.append(resident_set(keeper))

        answer = helper.receive(connection)

        assert int(answer["out_total"]) > 10 << 20
        assert max(sizes) < 4 << 20
        assert disk(helper.folder) < 2 << 20


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def resident_set(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def disk(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.iterdir())


class TestPolled:
    def test_the_same_offset_gives_the_same_bytes(self, ask: Ask) -> None:
        start = ask(
            "start",
            shell("echo a; echo b >&2; sleep 0.3; echo c; exit 3", key="k", wait=100, number_min=5,
                  number_max=6),
        )  # fmt: skip
        first = ask("read", {"number": 5, "from": 2, "wait": 5000})
        again = ask("read", {"key": "k", "from": 2})

        assert (b"a\nb\n", b"0", b"5") == (start["data"], start["end"], start["number"])
        assert (b"b\nc\n", b"1", b"3") == (first["data"], first["end"], first["code"])
        assert (b"b\nc\n", b"1", b"3") == (again["data"], again["end"], again["code"])

    def test_a_read_that_waits_for_data_comes_back_with_the_first(self, helper: Helper) -> None:
        helper.ask("start", shell("sleep 0.2; echo a; sleep 60", key="k", wait=0))

        answer = helper.ask("read", {"key": "k", "wait": 10_000, "until": "data"})

        assert (b"a\n", b"0") == (answer["data"], answer["end"])

    def test_what_is_not_kept_is_told(self, helper: Helper) -> None:
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
        start = ask("start", shell(script, key="k", tty=1, rows=30, cols=100, wait=300))
        assert b"30 100\r\n/dev/pts\r\n" == start["data"]

        assert b"done" == ask("resize", {"key": "k", "rows": 40, "cols": 120})["word"]
        answer = ask("write", {"key": "k", "id": "w", "data": "hi\n", "wait": 5000,
                               "from": start["next"].decode()})  # fmt: skip

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


class TestFolder:
    def test_it_is_private(self, helper: Helper) -> None:
        helper.ask("run", shell("true"))

        assert 0o700 == helper.folder.stat().st_mode & 0o777
        assert {0o600} == {path.stat().st_mode & 0o777 for path in helper.folder.iterdir()}

    @pytest.mark.parametrize("wrong", ["link", "mode", "file", "parent", "owner"])
    def test_one_that_is_not_ours_is_refused(
        self, binary: Path, tmp_path: Path, wrong: str
    ) -> None:
        folder = tmp_path / "state"
        if wrong == "link":
            (tmp_path / "other").mkdir(mode=0o700)
            folder.symlink_to(tmp_path / "other")
        elif wrong == "mode":
            folder.mkdir(mode=0o755)
        elif wrong == "file":
            folder.touch(mode=0o600)
        elif wrong == "parent":
            folder = tmp_path / "no" / "state"
        elif os.getuid() == 0:
            folder.mkdir(mode=0o700)
            os.chown(folder, 65534, 65534)
        else:
            pytest.skip("only root can make another user's folder")

        done, mark = Helper(binary, folder, EMULATOR).exec_raw(
            "run", shell(f"touch {tmp_path}/ran")
        )

        assert done.stdout.startswith(f"{mark} refused text=".encode())
        assert (69, b"") == (done.returncode, done.stderr)
        assert not (tmp_path / "ran").exists()

    def test_its_path_may_be_longer_than_a_socket_address(
        self, binary: Path, tmp_path: Path
    ) -> None:
        (tmp_path / ("long" * 40)).mkdir()
        helper = Helper(binary, tmp_path / ("long" * 40) / "state", EMULATOR)

        assert b"out\n" == helper.exec("run", shell("echo out"))["out"]
        assert (
            b"out\n"
            == helper.ask("run", shell("echo out", env=f"PATH={os.environ['PATH']}"))["out"]
        )
        helper.exec("stop")

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
    def test_another_user_cannot_ask(self, helper: Helper) -> None:
        helper.folder.parent.chmod(0o755)
        helper.folder.chmod(0o711)
        (helper.folder / "sock").chmod(0o666)
        child = os.fork()
        if child == 0:
            got = b"never asked"
            try:
                os.chdir(helper.folder)
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect("sock")
                    got = b""
                    connection.sendall(b"\0\0\0\x0e4:verb,4:ping,")
                    got = connection.recv(100)
            finally:
                os._exit(len(got))
        _, status = os.waitpid(child, 0)
        helper.folder.chmod(0o700)

        assert 0 == status

    @pytest.mark.parametrize(
        "garbage",
        [
            b"",
            b"\x00",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x03abc",
            b"\0\0\0\x054:a,x",
            b"\0\0\0\x004:verb,",
        ],
    )
    def test_garbage_harms_nobody(self, helper: Helper, garbage: bytes) -> None:
        with helper.connect() as connection:
            connection.sendall(garbage)
            connection.shutdown(1)
            connection.recv(100)

        assert b"ready" == helper.ask("ping")["word"]

    @pytest.mark.parametrize("pieces", [[], ["!"], ["QQ"], ["A"], ["MTp"]])
    def test_a_client_without_a_request_says_nothing(self, binary: Path, pieces: list[str]) -> None:
        done = subprocess.run([*EMULATOR, binary, "run", *pieces], capture_output=True, check=False)

        assert (64, b"") == (done.returncode, done.stdout)

    def test_an_unknown_verb_is_an_error(self, ask: Ask) -> None:
        assert b"error" == ask("frobnicate", {})["word"]

    @pytest.mark.parametrize("key", ["", "a/b", "..", "x" * 129, "sock", "lock", "ä"])
    def test_a_malformed_key_is_an_error(self, ask: Ask, key: str) -> None:
        assert b"error" == ask("run", shell("true", key=key))["word"]


class TestDisk:
    """A disk that is full or read-only: the command runs once nevertheless."""

    @pytest.fixture
    def small(self, binary: Path, tmp_path: Path) -> Iterator[Helper]:
        if os.getuid() != 0:
            pytest.skip("only root can mount")
        mount = tmp_path / "small"
        mount.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"mount: {done.stderr.decode().strip()}")
        helper = Helper(binary, mount / "state", EMULATOR)
        helper.exec("boot")
        yield helper
        subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
        helper.ask("stop")
        until(lambda: subprocess.run(["umount", mount], check=False).returncode == 0)

    def fill(self, small: Helper) -> Path:
        filler = small.folder.parent / "filler"
        subprocess.run(f"cat /dev/zero > {filler}", shell=True, capture_output=True, check=False)
        return filler

    def test_full(self, small: Helper, tmp_path: Path) -> None:
        filler = self.fill(small)
        request = shell(f"echo run >> {tmp_path}/runs; echo out", key="k")

        first, again = small.exec("run", request), small.exec("run", request)

        for answer in (first, again):
            assert (b"out\n", b"0") == (answer["out"], answer["stored"])
        assert "run\n" == (tmp_path / "runs").read_text()
        filler.unlink()
        until(lambda: small.ask("ping")["live"] == b"0")
        stored = small.exec("run", request)
        assert (b"out\n", b"1") == (stored["out"], stored["stored"])

    @pytest.mark.parametrize("folder", ["there", "missing"])
    def test_without_room_for_a_resident_it_is_said_at_once(
        self, small: Helper, folder: str
    ) -> None:
        """No file can be made any more: neither the folder nor the socket in it."""
        other = Helper(small.binary, small.folder.parent / "other", EMULATOR)
        if folder == "there":
            other.folder.mkdir(0o700)
        mount = small.folder.parent
        subprocess.run(["mount", "-o", "remount,nr_inodes=20", mount], check=True)
        fillers = [mount / f"f{n}" for n in range(20)]
        with contextlib.suppress(OSError):
            for filler in fillers:
                filler.touch()
        begun = time.monotonic()

        answer = other.exec("run", shell("echo out"))

        word = b"unavailable" if folder == "there" else b"refused"
        assert (word, b"28") == (answer["word"], answer["errno"])
        assert time.monotonic() - begun < 2
        for filler in fillers:
            filler.unlink(missing_ok=True)
        assert b"out\n" == other.exec("run", shell("echo out"))["out"]
        other.exec("stop")

    def test_what_cannot_be_written_can_be_dropped(self, small: Helper) -> None:
        self.fill(small)
        small.exec("run", shell("echo out", key="k"))

        assert b"1" == small.exec("drop", {"key": "k"})["count"]
        assert b"dropped" == small.exec("run", shell("echo out", key="k"))["word"]
        until(lambda: small.ask("ping")["live"] == b"0")

    def test_read_only(self, small: Helper, tmp_path: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", small.folder.parent], check=True)
        request = shell(f"echo run >> {tmp_path}/runs; echo out", key="k")

        first, again = small.exec("run", request), small.exec("run", request)

        for answer in (first, again):
            assert (b"out\n", b"0", b"1") == (answer["out"], answer["stored"], answer["volatile"])
        assert "run\n" == (tmp_path / "runs").read_text()


class TestSurvival:
    """Whatever is killed, a command runs once, or it is said that its end is unknown."""

    def test_records_outlive_the_resident(self, helper: Helper) -> None:
        answer = helper.ask("run", shell("echo out; exit 3", key="k"))
        helper.ask("start", shell("echo polled", key="p", wait=5000, number_min=7, number_max=8))
        helper.ask("drop", {"key": helper.ask("run", shell("true"))["key"]})
        os.kill(int(helper.ask("ping")["pid"]), signal.SIGKILL)

        assert answer == helper.exec("run", shell("echo another", key="k"))
        assert b"polled\n" == helper.exec("read", {"number": 7})["data"]
        assert b"3" == helper.exec("ping")["records"]

    @pytest.mark.parametrize("tty", [0, 1])
    def test_a_running_command_outlives_the_resident(self, helper: Helper, tty: int) -> None:
        script = "echo ready; read x; echo got $x; sleep 0.2; echo end"
        helper.ask("start", shell(script, key="k", stdin=1, tty=tty, wait=5000, until="data"))
        os.kill(int(helper.ask("ping")["pid"]), signal.SIGKILL)

        answer = helper.exec("write", {"key": "k", "id": "w", "data": "hi\n", "wait": 5000})

        assert answer["data"].replace(b"\r", b"").endswith(b"got hi\nend\n")
        assert (b"1", b"0") == (answer["end"], answer["code"])

    def test_it_finishes_without_a_resident(self, helper: Helper, tmp_path: Path) -> None:
        script = f"echo ready > {tmp_path}/ready; sleep 0.3; echo out; exit 4"
        connection = helper.send("run", shell(script, key="k"))
        line_of(tmp_path / "ready")
        os.kill(int(helper.ask("ping")["pid"]), signal.SIGKILL)

        # Its keeper has the connection, and needs no resident to answer it.
        assert (b"out\n", b"4") == (helper.receive(connection)["out"], b"4")
        assert b"out\n" == helper.exec("run", shell("true", key="k"))["out"]

    @needs_reaping
    def test_all_is_ended_after_the_resident_was_replaced(
        self, helper: Helper, tmp_path: Path
    ) -> None:
        script = TREE.format(tmp_path / "pids", tmp_path / "ready", "sleep 66")
        helper.ask("run", shell(script, wait=0))
        line_of(tmp_path / "ready")
        os.kill(int(helper.ask("ping")["pid"]), signal.SIGKILL)

        assert b"0" == helper.exec("end", {"which": "all", "reason": "test"})["left"]
        assert not any(map(running, map(int, (tmp_path / "pids").read_text().split())))

    @needs_reaping
    def test_a_killed_keeper_is_an_unknown_end_and_its_tree_is_ended(
        self, ask: Ask, tmp_path: Path
    ) -> None:
        script = TREE.format(tmp_path / "pids", tmp_path / "ready", "kill -9 $PPID; sleep 66")
        request = shell(script, key="k")

        try:
            answer = ask("run", request)
        except NoAnswer:
            answer = ask("run", request)

        assert b"lost" == answer["word"] == ask("run", request)["word"]
        pids = list(map(int, (tmp_path / "pids").read_text().split()))
        assert 6 == len(pids)
        until(lambda: not any(map(running, pids)))

    @needs_reaping
    @pytest.mark.parametrize("verb", ["run", "start"])
    def test_with_keeper_and_resident_killed_at_once_the_next_ends_the_tree(
        self, helper: Helper, tmp_path: Path, verb: str
    ) -> None:
        """Also those of its processes that are nobody's children and lead a session."""
        script = f"echo $PPID > {tmp_path}/keeper; " + TREE.format(
            tmp_path / "pids", tmp_path / "ready", "sleep 66"
        )
        helper.ask(verb, shell(script, key="k", wait=0))
        line_of(tmp_path / "ready")
        pids = list(map(int, (tmp_path / "pids").read_text().split()))
        time.sleep(LOOKS_S)
        other = helper.send("run", shell(f"echo > {tmp_path}/other; sleep 0.5; echo other"))
        line_of(tmp_path / "other")

        for process in (int(helper.ask("ping")["pid"]), int(line_of(tmp_path / "keeper"))):
            os.kill(process, signal.SIGKILL)

        assert 6 == len([pid for pid in pids if running(pid)])
        assert b"lost" == helper.exec(verb, shell("true", key="k"))["word"]
        assert [] == [pid for pid in pids if running(pid)]
        assert b"other\n" == helper.receive(other)["out"]

    @needs_reaping
    @pytest.mark.parametrize("resident", ["killed", "alive"])
    def test_what_was_ended_is_not_looked_for_again(
        self, helper: Helper, tmp_path: Path, resident: str
    ) -> None:
        """Its numbers may be others' by then."""
        script = f"echo $PPID > {tmp_path}/keeper; echo $$ > {tmp_path}/pid; exec sleep 66"
        request = shell(script, key="k", wait=0)
        helper.ask("start", request)
        pid, keeper = int(line_of(tmp_path / "pid")), int(line_of(tmp_path / "keeper"))
        marker = helper.folder / "k"
        until(lambda: b"4:root," in marker.read_bytes())
        listed = helper.ask("list")["entry"].split(b":")
        if resident == "killed":
            os.kill(int(helper.ask("ping")["pid"]), signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)

        until(lambda: b"lost" == helper.exec("start", request)["word"])
        until(lambda: not running(pid))
        until(lambda: b"4:root," not in marker.read_bytes())

        os.kill(int(helper.ask("ping")["pid"]), signal.SIGKILL)
        assert b"lost" == helper.exec("start", request)["word"]
        again = helper.ask("list")["entry"].split(b":")
        assert b"lost" == again[2]
        assert [listed[i] for i in (0, 1, 3, 4)] == [again[i] for i in (0, 1, 3, 4)]

    @needs_reaping
    def test_so_does_one_that_is_told_to_end_all(self, helper: Helper, tmp_path: Path) -> None:
        """What a finished command has left behind, and then everybody was killed."""
        script = (
            f"echo $PPID > {tmp_path}/keeper; (setsid sleep 61 >/dev/null 2>&1 & "
            f"echo $! >> {tmp_path}/pids); sleep 62 >/dev/null 2>&1 & echo $! >> {tmp_path}/pids"
        )
        assert b"exited" == helper.ask("run", shell(script, key="k"))["word"]
        pids = list(map(int, (tmp_path / "pids").read_text().split()))
        for process in (int(helper.ask("ping")["pid"]), int(line_of(tmp_path / "keeper"))):
            os.kill(process, signal.SIGKILL)

        assert b"exited" == helper.exec("run", shell("true", key="k"))["word"]
        assert 2 == len([pid for pid in pids if running(pid)])
        helper.exec("end", {"which": "all", "reason": "test"})
        assert [] == [pid for pid in pids if running(pid)]

    def test_processes_that_only_have_the_number_of_a_lost_one_live_on(
        self, helper: Helper, tmp_path: Path
    ) -> None:
        helper.ask("run", shell(f"echo $PPID > {tmp_path}/keeper; sleep 66", key="k", wait=0))
        keeper = int(line_of(tmp_path / "keeper"))
        marker = helper.folder / "k"
        root = re.search(rb"4:root,\d+:(\d+)( \d+ (\d+)),", marker.read_bytes())
        assert root is not None
        tick_later = (int(root[3]) + 10) / 1000
        until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > tick_later)
        other = subprocess.Popen(["sleep", "60"], start_new_session=True)
        another = b"%d%b" % (other.pid, root[2])
        for process in (int(helper.ask("ping")["pid"]), keeper):
            os.kill(process, signal.SIGKILL)
        with marker.open("r+b") as file:
            content = file.read()
            file.seek(0)
            file.write(content.replace(root[0], b"4:root,%d:%b," % (len(another), another)))
        os.kill(int(root[1]), signal.SIGKILL)

        assert b"lost" == helper.exec("run", shell("true", key="k"))["word"]
        assert other.poll() is None
        other.kill()
        other.wait()

    def test_other_commands_do_not_mind(self, helper: Helper) -> None:
        connection = helper.send("run", shell("sleep 0.5; echo other"))
        with pytest.raises(NoAnswer):
            helper.ask("run", shell("kill -9 $PPID; sleep 60", key="k"))

        assert b"lost" == helper.ask("run", shell("true", key="k"))["word"]
        assert b"other\n" == helper.receive(connection)["out"]

    def test_a_folder_that_was_removed_takes_its_resident_along(self, helper: Helper) -> None:
        """It looks once a minute, and whenever it wakes up."""
        resident = int(helper.ask("ping")["pid"])
        connection = helper.connect()
        shutil.rmtree(helper.folder)
        connection.close()

        until(lambda: not running(resident))


class TestNamespaces:
    """As a sandbox of its own, in which the only other process collects nobody."""

    @pytest.fixture
    def inside(self, binary: Path, tmp_path: Path) -> Iterator[Helper]:
        script = f"mount -t proc proc /proc; echo > {tmp_path}/up; exec sleep 1000"
        first = subprocess.Popen(
            ["unshare", "-mpf", "--kill-child", "sh", "-c", script], stderr=subprocess.PIPE
        )
        try:
            until(lambda: first.poll() is not None or (tmp_path / "up").exists())
            if first.poll() is not None and first.stderr:
                pytest.skip(f"unshare: {first.stderr.read().decode().strip()}")
            (pid,) = children(first.pid)
            yield Helper(
                binary,
                tmp_path / "state",
                ["nsenter", "-t", str(pid), "-m", "-p", "--", *EMULATOR],
            )
        finally:
            first.kill()
            first.wait()

    @pytest.mark.parametrize("kill", ["kill -TERM -1", "kill -HUP -1", "pkill -f ."])
    def test_killing_everybody_leaves_us(self, inside: Helper, kill: str) -> None:
        answer = inside.exec(
            "run", shell(f"trap : TERM HUP; sleep 60 & sleep 0.2; {kill}; wait $!; echo on")
        )

        assert (b"exited", b"0", b"on\n") == (answer["word"], answer["code"], answer["out"])

    def test_killing_everybody_for_good_is_an_unknown_end(self, inside: Helper) -> None:
        with pytest.raises((NoAnswer, AssertionError)):
            inside.exec("run", shell("kill -9 -1", key="k"))

        assert b"lost" == inside.exec("run", shell("true", key="k"))["word"]

    @needs_reaping
    def test_no_zombies_without_an_init(self, inside: Helper) -> None:
        for _ in range(10):
            inside.exec("run", shell("(sleep 0.05 >/dev/null 2>&1 &) ; true"))
        time.sleep(0.1)

        listed = inside.exec("run", shell("ps -eo stat= | grep -c Z"))

        assert b"0\n" == listed["out"]

    def test_without_proc_the_group_is_ended(self, inside: Helper, tmp_path: Path) -> None:
        subprocess.run([*inside.prefix[:6], "umount", "/proc"], check=True)

        script = f"sleep 71 & while :; do echo >> {tmp_path}/beat; sleep 0.02; done"
        answer = inside.exec("run", shell(script, timeout=300))

        assert (b"ended", b"timeout") == (answer["word"], answer["reason"])
        beats = (tmp_path / "beat").read_text()
        time.sleep(0.1)
        assert beats == (tmp_path / "beat").read_text()

    def test_where_no_process_can_be_made_it_is_said(self, inside: Helper) -> None:
        group = Path("/sys/fs/cgroup/pids") / f"helper-{uuid.uuid4().hex}"
        try:
            group.mkdir()
        except OSError as error:
            pytest.skip(f"no pids control group: {error}")
        try:
            inside.exec("boot")
            resident = next(
                int(path.parent.name)
                for path in Path("/proc").glob("[0-9]*/cwd")
                if os.path.realpath(path) == str(inside.folder)
            )
            (group / "cgroup.procs").write_text(str(resident))
            told = {}
            for limit in (1, 2):
                (group / "pids.max").write_text(str(limit))
                told[limit] = inside.exec("run", shell("true", key="k"))
            (group / "pids.max").write_text("max")

            for answer in told.values():
                assert (b"notrun", b"fork", b"11") == (
                    answer["word"],
                    answer["why"],
                    answer["errno"],
                )
            assert b"exited" == inside.exec("run", shell("true", key="k"))["word"]
        finally:
            inside.exec("stop")
            until(lambda: not (group / "cgroup.procs").read_text())
            group.rmdir()
