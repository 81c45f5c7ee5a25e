"""The helper's installation in a sandbox: with any shell, without base64, despite others' files."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import pytest
from agents.sandbox import Manifest
from agents.sandbox.manifest import Environment
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.types import ExecResult
from processes.conftest import through_exec
from processes.driving import Box, command, seen

from sandbox_core.worker.commands import host, install
from sandbox_core.worker.commands.binaries import Binary, binary_for
from sandbox_core.worker.commands.helper import _ThroughExec
from sandbox_core.worker.commands.host import states_on_host, stop_on_host

SCRIPT = files("sandbox_core.worker.commands").joinpath("install.sh").read_text()
ENGINE = "OCI runtime exec failed: exec failed: unable to start container process"
NOBODY = 65534
TOOLS = ("cat", "chmod", "id", "ls", "mkdir", "mv", "rm", "rmdir", "sh", "sleep", "uname", "wc")

SHELLS = {
    "sh": ["sh"],
    "dash": ["dash"],
    "bash": ["bash", "--posix"],
    "busybox": ["busybox", "sh"],
}


def ours() -> Binary:
    binary = binary_for("", "")
    assert binary is not None
    return binary


def asked(shell: Sequence[str], verb: str, *words: str) -> tuple[str, dict[str, str]]:
    """What the script answers."""
    done = subprocess.run(
        [*shell, "-c", SCRIPT, "sh", "mark", verb, *words], capture_output=True, check=True
    )
    assert done.stderr == b""
    mark, word, *pairs = done.stdout.decode().strip().split(" ")
    assert mark == "mark"
    return word, dict(pair.split("=", 1) for pair in pairs)


def names(folder: str | Path) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The only folder in which the helper may be."""
    folder = tmp_path / "base"
    folder.mkdir(mode=0o1777)
    folder.chmod(0o1777)
    return folder


class TestScript:
    @pytest.fixture(params=SHELLS)
    def shell(self, request: pytest.FixtureRequest) -> list[str]:
        words = SHELLS[request.param]
        if shutil.which(words[0]) is None:
            pytest.skip(f"{words[0]} is not installed")
        return words

    def find(self, shell: Sequence[str], base: Path) -> tuple[str, dict[str, str]]:
        return asked(shell, "find", ours().name, "id", install.SAYS, "/nowhere", str(base))

    @pytest.mark.parametrize("encoding", ["base64", "octal"])
    def test_puts_what_it_was_given(self, shell: list[str], base: Path, encoding: str) -> None:
        word, found = self.find(shell, base)
        assert ("found", "", "yes") == (word, found["helper"], found["base64"])
        file = f"{found['place']}/piece"

        for piece in install._encoded(ours().content, encoding):
            assert "added" == asked(shell, "add", file, encoding, piece)[0]
        size = str(len(ours().content))
        assert "put" == asked(shell, "put", file, ours().name, size, install.SAYS)[0]

        _, found = self.find(shell, base)
        assert f"{base}/.sandbox-helper-{os.getuid()}/{ours().name}" == found["helper"]
        assert ours().content == Path(found["helper"]).read_bytes()
        assert [ours().name] == names(Path(found["helper"]).parent)

    def test_keeps_nothing_that_was_cut(self, shell: list[str], base: Path) -> None:
        _, found = self.find(shell, base)
        file = f"{found['place']}/piece"
        (first, *_) = install._encoded(ours().content, "octal")
        asked(shell, "add", file, "octal", first)

        size = str(len(ours().content))
        assert "failed" == asked(shell, "put", file, ours().name, size, install.SAYS)[0]
        assert [] == names(found["place"])

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
    @pytest.mark.parametrize("link", [False, True], ids=["folder", "link"])
    def test_runs_nothing_of_another_user(
        self, shell: list[str], base: Path, tmp_path: Path, link: bool
    ) -> None:
        """Who may write in /tmp can make a folder with our name there, and a program in it."""
        theirs = base / f".sandbox-helper-{os.getuid()}"
        if link:
            theirs.symlink_to(tmp_path / "theirs")
            theirs = tmp_path / "theirs"
        theirs.mkdir()
        trap = theirs / ours().name
        trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran; echo {install.SAYS}x\n")
        trap.chmod(0o755)
        for path in (theirs, trap):
            os.chown(path, NOBODY, NOBODY)

        word, found = self.find(shell, base)

        assert ("unusable", "no-directory-that-allows-executables") == (word, found.get("why"))
        assert not (tmp_path / "ran").exists()


class TestUpload:
    @pytest.fixture
    async def box(
        self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[Box]:
        """In which there is no base64."""
        monkeypatch.setattr(install, "bases", lambda _: [str(base)])
        tools = tmp_path / "tools"
        tools.mkdir()
        for name in TOOLS:
            (tools / name).symlink_to(str(shutil.which(name)))
        provider = through_exec()
        client = UnixLocalSandboxClient(inherit_host_environment=False)
        manifest = Manifest(environment=Environment(value={"PATH": str(tools)}))
        session = await client.create(manifest=manifest, options=None)
        await session.start()
        box = Box(provider, session)
        yield box
        await box.forget()
        await client.delete(session)

    async def test_without_base64(self, box: Box, base: Path) -> None:
        result = await box.exec("echo out; exit 3")

        assert (b"out\n", b"", 3) == seen(result)
        program = base / f".sandbox-helper-{os.getuid()}" / ours().name
        assert ours().content == program.read_bytes()

    @pytest.mark.parametrize("full", [0, 1])
    async def test_is_tried_again_if_any_folder_was_only_full(
        self, box: Box, base: Path, monkeypatch: pytest.MonkeyPatch, full: int
    ) -> None:
        """A folder that is full cannot be had from this host at will: what is found is replaced."""
        folders = [base, base.parent / "other"]
        folders[1].mkdir(mode=0o700)
        monkeypatch.setattr(install, "bases", lambda _: [str(folder) for folder in folders])

        async def fails(*words: object) -> install.Unusable:
            found = words[-1]
            assert isinstance(found, dict)
            place = Path(found["place"]).parent
            return install.Unusable("fails", lasting=place != folders[full])

        monkeypatch.setattr(install, "_upload", fails)

        with pytest.raises(install.Unusable) as raised:
            await install.install(box.session._inner, None)
        assert not raised.value.lasting

    @pytest.mark.parametrize(
        ("code", "text", "why", "lasting"),
        [
            (2, "/bin/sh: 1: Cannot fork", "no process can be started there", False),
            (126, f"{ENGINE}: read init-p: connection reset by peer", "no process", False),
            (127, f"{ENGINE}: stat /bin/sh: no such file or directory", "no POSIX shell", True),
        ],
        ids=["fork", "engine", "missing"],
    )
    async def test_a_full_process_table_is_no_missing_shell(
        self,
        box: Box,
        monkeypatch: pytest.MonkeyPatch,
        code: int,
        text: str,
        why: str,
        lasting: bool,
    ) -> None:
        """Answers of a Docker engine, which gives them by chance near a container's limit."""
        said = ExecResult(stdout=text.encode(), stderr=b"", exit_code=code)

        async def exec_(*_: object, **__: object) -> ExecResult:
            return said

        inner = box.session._inner
        monkeypatch.setattr(inner, "exec", exec_)

        with pytest.raises(install.Unusable, match=why) as raised:
            await install.install(inner, None)
        assert lasting == raised.value.lasting

    async def test_two_versions_ask_the_same_helper(
        self, box: Box, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While workers are upgraded, each has put its own there; a command still runs once."""
        inner = box.session._inner
        helpers = []
        for more in (b"", b"another"):
            binary = Binary(content=ours().content + more)
            monkeypatch.setattr(install, "binary_for", lambda *_, found=binary: found)
            helpers.append(_ThroughExec(inner, None, await install.install(inner, None)))
        run = command("x")
        fields: list[tuple[str, str | bytes | int]] = [
            ("key", run.operation_id),
            ("arg", "sh"),
            ("arg", "-c"),
            ("arg", "echo run >> runs; echo out"),
            ("wait", 9000),
        ]

        answers = [await helper.ask("run", fields) for helper in (*helpers, *helpers)]

        assert [b"out\n"] * 4 == [answer.fields["out"] for answer in answers]
        assert "run\n" == await box.text("cat runs")
        assert 2 == len(names(base / f".sandbox-helper-{os.getuid()}"))
        assert 1 == len({answer.fields["pid"] for answer in answers})


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
class TestAnotherUsersFolder:
    """Anybody may make a folder in /tmp that is called like the state of a session."""

    @pytest.fixture
    def silent(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
        """A socket in such a folder, which takes connections and says nothing."""
        monkeypatch.setattr(host, "BASES", (str(base),))
        monkeypatch.setattr(host, "_STOPPED_WITHIN_S", 0.5)
        taken: list[socket.socket] = []
        with socket.socket(socket.AF_UNIX) as listener:
            self.listener = listener
            yield taken
            listener.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            connection.close()

    def listen(self, folder: Path, owner: int, taken: list[socket.socket]) -> None:
        folder.mkdir(0o700)
        opened = os.open(folder, os.O_PATH)
        self.listener.bind(f"/proc/self/fd/{opened}/sock")  # Its own path may be too long.
        os.close(opened)
        self.listener.listen()
        os.chown(folder, owner, owner)

        def accept() -> None:
            try:
                while True:
                    taken.append(self.listener.accept()[0])
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()

    def state(self, base: Path, uid: int) -> Path:
        return base / f".sandbox-{uid}-{install.root_id('/w')}-x"

    async def test_is_not_asked_if_its_name_is_a_lie(
        self, base: Path, silent: list[socket.socket]
    ) -> None:
        self.listen(self.state(base, os.getuid()), NOBODY, silent)

        assert [] == states_on_host("/w")
        assert await stop_on_host(states_on_host("/w"))
        assert [] == silent

    async def test_keeps_nobody_waiting(self, base: Path, silent: list[socket.socket]) -> None:
        """That of a user as whom a command may have run."""
        state = self.state(base, NOBODY)
        self.listen(state, NOBODY, silent)

        assert [str(state)] == states_on_host("/w")
        assert not await stop_on_host(states_on_host("/w"))
        assert 1 == len(silent)

    async def test_is_not_used(
        self,
        local: Box,
        base: Path,
        silent: list[socket.socket],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        name = f".sandbox-{os.getuid()}-{install.state_id(local.session)}"
        self.listen(base / name, NOBODY, silent)
        free = base.parent / "free"
        free.mkdir()
        monkeypatch.setattr(host, "BASES", (str(base), str(free)))

        assert (b"out\n", b"", 3) == seen(await local.exec("echo out; exit 3"))
        assert [] == silent
        assert (free / name).is_dir()
        assert await local.forget()
