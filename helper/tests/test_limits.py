"""The memory, disk space and files that commands and their records use are bounded."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from driver import Helper
from scene import (
    EMULATOR,
    Ask,
    children,
    disk,
    is_emulated,
    resident_set,
    shell,
    until,
)

pytest_plugins = ["helper_fixtures"]

GIVEN_UP_S = 5
"""How long a client waits for a resident."""


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
        connection = helper.send("run", shell("yes", key="k"))
        until(lambda: b"1" == helper.ask("ping")["live"])
        (keeper,) = children(int(helper.ask("ping")["pid"]))
        sizes = []
        for _ in range(15):
            time.sleep(0.1)  # Between two samples.
            sizes.append(resident_set(keeper))
        helper.ask("end", {"key": "k", "reason": "test"})

        answer = helper.receive(connection)

        assert int(answer["out_total"]) > 10 << 20
        assert max(sizes) < 4 << 20
        assert disk(helper.folder) < 2 << 20


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
    def test_without_room_for_a_resident_it_fails_at_once(self, small: Helper, folder: str) -> None:
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
        assert time.monotonic() - begun < GIVEN_UP_S
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
