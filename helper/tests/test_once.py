"""A command runs once, regardless of repeated requests and killed processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from driver import Helper, NoAnswer
from scene import (
    EMULATOR,
    LOOKS_S,
    TREE,
    Ask,
    children,
    line_of,
    needs_reaping,
    running,
    shell,
    until,
)

pytest_plugins = ["helper_fixtures"]


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

    @needs_reaping
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
        time.sleep(LOOKS_S)  # Nothing tells that the keeper has recorded all of its tree.
        other = helper.send("run", shell(f"echo > {tmp_path}/other; sleep 0.5; echo other"))
        line_of(tmp_path / "other")

        for process in (int(helper.ask("ping")["pid"]), int(line_of(tmp_path / "keeper"))):
            os.kill(process, signal.SIGKILL)

        assert 6 == len([pid for pid in pids if running(pid)])
        assert b"lost" == helper.exec(verb, shell("true", key="k"))["word"]
        assert [] == [pid for pid in pids if running(pid)]
        assert b"other\n" == helper.receive(other)["out"]

    @needs_reaping
    @pytest.mark.parametrize("asked", [True, False])
    def test_a_keeper_that_dies_after_the_next_resident_has_looked_leaves_no_tree(
        self, helper: Helper, tmp_path: Path, asked: bool
    ) -> None:
        """On a busy machine, one that was killed holds its lock for a while."""
        script = f"echo $PPID > {tmp_path}/keeper; " + TREE.format(
            tmp_path / "pids", tmp_path / "ready", "sleep 66"
        )
        helper.ask("run", shell(script, key="k", wait=0))
        line_of(tmp_path / "ready")
        pids = list(map(int, (tmp_path / "pids").read_text().split()))
        time.sleep(LOOKS_S)  # Nothing tells that the keeper has recorded all of its tree.
        resident, keeper = int(helper.ask("ping")["pid"]), int(line_of(tmp_path / "keeper"))
        os.kill(keeper, signal.SIGSTOP)
        os.kill(resident, signal.SIGKILL)
        assert b"ready" == helper.exec("ping")["word"]

        os.kill(keeper, signal.SIGKILL)

        assert 6 == len([pid for pid in pids if running(pid)])
        if asked:
            assert b"lost" == helper.exec("run", shell("true", key="k"))["word"]
            assert [] == [pid for pid in pids if running(pid)]
        until(lambda: not any(map(running, pids)))

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
    def test_end_all_ends_what_a_killed_keeper_and_resident_left(
        self, helper: Helper, tmp_path: Path
    ) -> None:
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

    def test_other_commands_are_unaffected(self, helper: Helper) -> None:
        connection = helper.send("run", shell("sleep 0.5; echo other"))
        with pytest.raises(NoAnswer):
            helper.ask("run", shell("kill -9 $PPID; sleep 60", key="k"))

        assert b"lost" == helper.ask("run", shell("true", key="k"))["word"]
        assert b"other\n" == helper.receive(connection)["out"]

    def test_removing_the_folder_ends_its_resident(self, helper: Helper) -> None:
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
    def test_the_helper_survives_signals_to_every_process(self, inside: Helper, kill: str) -> None:
        answer = inside.exec(
            "run", shell(f"trap : TERM HUP; sleep 60 & sleep 0.2; {kill}; wait $!; echo on")
        )

        assert (b"exited", b"0", b"on\n") == (answer["word"], answer["code"], answer["out"])

    def test_sigkill_to_every_process_is_an_unknown_end(self, inside: Helper) -> None:
        with pytest.raises((NoAnswer, AssertionError)):
            inside.exec("run", shell("kill -9 -1", key="k"))

        assert b"lost" == inside.exec("run", shell("true", key="k"))["word"]

    @needs_reaping
    def test_no_zombies_without_an_init(self, inside: Helper) -> None:
        for _ in range(10):
            inside.exec("run", shell("(sleep 0.05 >/dev/null 2>&1 &) ; true"))
        left = shell("ps -e -o stat= -o args= | grep -cE '^Z|[s]leep 0[.]05'")

        # What was left behind ends, and a zombie would stay one.
        until(lambda: b"0\n" == inside.exec("run", {**left, "key": uuid.uuid4().hex})["out"])

    def test_without_proc_the_group_is_ended(self, inside: Helper, tmp_path: Path) -> None:
        subprocess.run([*inside.prefix[:6], "umount", "/proc"], check=True)

        script = f"sleep 71 & while :; do echo >> {tmp_path}/beat; sleep 0.02; done"
        answer = inside.exec("run", shell(script, timeout=1000))

        assert (b"ended", b"timeout") == (answer["word"], answer["reason"])
        beats = (tmp_path / "beat").read_text()
        time.sleep(0.1)  # A beat that is still to come would come within 0.02 s.
        assert beats == (tmp_path / "beat").read_text()

    def test_it_reports_that_no_process_can_be_started(self, inside: Helper) -> None:
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
