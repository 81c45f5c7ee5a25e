"""A command ends together with everything it has started."""

from __future__ import annotations

import os
from pathlib import Path

from driver import Helper
from scene import (
    TREE,
    Ask,
    bare,
    line_of,
    needs_reaping,
    running,
    shell,
    until,
)

pytest_plugins = ["helper_fixtures"]


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
    def test_a_fast_forking_tree_is_ended_too(self, helper: Helper, tmp_path: Path) -> None:
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
