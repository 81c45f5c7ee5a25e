"""Commands, processes, files and snapshots of a sandbox."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from agents.sandbox import Manifest, SandboxPathGrant
from agents.sandbox.entries import Dir, File
from agents.sandbox.errors import (
    ConfigurationError,
    ExecNonZeroError,
    ExecTimeoutError,
    ExecTransportError,
    InvalidManifestPathError,
    PtySessionNotFoundError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.manifest import Environment
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec

from sandbox_bubblewrap import (
    BubblewrapProvider,
    BubblewrapSandboxSessionState,
    commands,
    launch,
)
from sandbox_bubblewrap.client import BubblewrapSandboxClient
from sandbox_bubblewrap.store import Sandbox

pytest_plugins = ["bubblewrap_fixtures"]

pytestmark = pytest.mark.xdist_group("bubblewrap")


@pytest.fixture
async def session(client: BubblewrapSandboxClient) -> AsyncIterator[SandboxSession]:
    manifest = Manifest(
        entries={"hello.txt": File(content=b"hello\n"), "folder": Dir(children={})},
        environment=Environment(value={"GIVEN": "by the manifest"}),
        extra_path_grants=(SandboxPathGrant(path="/tmp"),),
    )
    made = await client.create(manifest=manifest)
    await made.start()
    yield made
    await client.delete(made)


# Is killed when bwrap has been started, and before its process 1 is put into control groups.
START_KILLED = """\
import os, signal, sys
from pathlib import Path
from sandbox_bubblewrap import BubblewrapSandboxClientOptions, launch, limits
from sandbox_bubblewrap.store import Sandbox

limits.Limits.enter = lambda self, pid: os.kill(os.getpid(), signal.SIGKILL)
options = BubblewrapSandboxClientOptions()
sandbox = Sandbox(path=Path(sys.argv[1]))
launch.Launch(sandbox=sandbox, root="/workspace", options=options).ensure_running()
"""


def _sandbox(client: BubblewrapSandboxClient, session: SandboxSession) -> Sandbox:
    assert isinstance(session.state, BubblewrapSandboxSessionState)
    sandbox = client.store.get(session.state.sandbox_id)
    assert sandbox is not None
    return sandbox


async def _out(session: SandboxSession, script: str) -> str:
    return (await session.exec(script)).stdout.decode(errors="surrogateescape")


class TestCommands:
    async def test_streams_exit_code_and_arguments_are_kept(self, session: SandboxSession) -> None:
        """Bytes too."""
        script = 'cat >&2; printf "%s|" "$@"; printf "\\377\\000"; exit 7'
        arguments = ["a b", "", "'", "größe", "-n", "line\nline"]
        result = await session.exec("sh", "-c", script, "sh", *arguments, shell=False)

        assert ("|".join([*arguments, ""]).encode() + b"\xff\0", b"") == (
            result.stdout,
            result.stderr,
        )
        assert 7 == result.exit_code

    async def test_the_environment_is_the_manifests(
        self, session: SandboxSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And nothing of the worker's."""
        monkeypatch.setenv("OPENAI_API_KEY", "s3cr3t-of-the-worker")
        shown = await session.exec("env", shell=False)

        assert {"GIVEN=by the manifest", "HOME=/workspace"} <= set(
            shown.stdout.decode().splitlines()
        )
        names = {line.partition("=")[0] for line in shown.stdout.decode().splitlines()}
        assert {"GIVEN", "HOME", "PATH"} == names

    async def test_it_is_who_and_where_it_should_be(self, session: SandboxSession) -> None:
        shown = await _out(session, "id -un; pwd; hostname; echo $PPID; umask")

        assert ["sandbox", "/workspace", "sandbox", "1", "0022"] == shown.split()

    async def test_a_large_output_is_whole(self, session: SandboxSession) -> None:
        result = await session.exec("seq 1 300000; seq 1 300000 >&2")

        whole = "".join(f"{n}\n" for n in range(1, 300001)).encode()
        assert (whole, whole) == (result.stdout, result.stderr)

    async def test_an_endless_output_fills_no_memory(
        self, session: SandboxSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The command is killed, and the error says what to do."""
        monkeypatch.setattr(commands, "MAX_OUTPUT", 10_000_000)
        with pytest.raises(ExecTransportError, match="more than 10,000,000 bytes") as failed:
            await asyncio.wait_for(session.exec("yes"), 20)

        assert not failed.value.retryable
        assert "yes" not in (await _out(session, "ps -eo comm=")).split()

    async def test_a_large_argument_arrives(self, session: SandboxSession) -> None:
        """Of as many bytes as Linux takes for one."""
        result = await session.exec("printf", "%s", "x" * 131000, shell=False)

        assert 131000 == len(result.stdout)

    @pytest.mark.parametrize(
        ("command", "cause"),
        [
            ("no-such-program", FileNotFoundError),
            ("./no-such-program", FileNotFoundError),
            ("./hello.txt/x", FileNotFoundError),
            ("/workspace", PermissionError),
        ],
    )
    async def test_a_program_that_cannot_be_run_is_an_error(
        self, session: SandboxSession, command: str, cause: type[OSError]
    ) -> None:
        """As by the SDK's local backend; nothing ran."""
        with pytest.raises(ExecTransportError) as failed:
            await session.exec(command, shell=False)

        assert isinstance(failed.value.cause, cause)
        assert (command,) == failed.value.command

    @pytest.mark.parametrize(("how", "code"), [("kill -9 $$", -9), ("kill -TERM $$", -15)])
    async def test_a_signal_is_told(self, session: SandboxSession, how: str, code: int) -> None:
        assert code == (await session.exec(how)).exit_code

    async def test_one_that_takes_too_long_is_killed_with_its_session(
        self, session: SandboxSession
    ) -> None:
        """Soon."""
        began = time.monotonic()
        with pytest.raises(ExecTimeoutError) as failed:
            await session.exec("sleep 611 & (sleep 612; true) & sleep 613", timeout=0.5)

        assert 0.5 == failed.value.timeout_s
        assert time.monotonic() - began < 3
        assert "sleep 61" not in await _out(session, "ps -eo args= | grep -v grep")

    async def test_one_that_nobody_waits_for_any_more_is_killed(
        self, session: SandboxSession
    ) -> None:
        running = asyncio.create_task(session.exec("touch began; sleep 614"))
        while "began" not in await _out(session, "ls"):
            pass
        running.cancel()
        await asyncio.wait({running})

        assert running.cancelled()
        assert "sleep 614" not in await _out(session, "ps -eo args= | grep -v grep")

    async def test_what_it_leaves_running_outlives_it(self, session: SandboxSession) -> None:
        """And whatever was in /tmp is there for the next."""
        await session.exec(
            "echo kept > /tmp/file; (sleep 615 & echo $! > /tmp/pid) >/dev/null 2>&1"
        )

        assert "kept\n" == await _out(session, "kill $(cat /tmp/pid) && cat /tmp/file")

    async def test_fifty_run_at_once(self, session: SandboxSession) -> None:
        began = time.monotonic()
        results = await asyncio.gather(*(session.exec(f"sleep 0.5; echo {n}") for n in range(50)))

        assert [f"{n}\n".encode() for n in range(50)] == [result.stdout for result in results]
        assert time.monotonic() - began < 10

    async def test_no_zombie_is_left(self, session: SandboxSession) -> None:
        """Process 1 reaps whatever has lost its parent."""
        await session.exec("for n in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.3")

        assert "Z" not in await _out(session, "ps -eo stat=")

    async def test_there_is_one_user(self, session: SandboxSession) -> None:
        """The message says which."""
        with pytest.raises(
            ConfigurationError, match="has one user, 'sandbox': nothing can be done as 'b'"
        ):
            await session.exec("id", user="b")

        assert 0 == (await session.exec("id", user="sandbox")).exit_code


class TestProcesses:
    async def test_a_terminal_is_one(self, session: SandboxSession) -> None:
        """With a size, a name, echo, and keys that send signals."""
        started = await session.pty_exec_start(
            "tty; stty size; read x; echo got $x; sleep 600", tty=True, yield_time_s=0.5
        )
        assert started.process_id is not None
        answered = await session.pty_write_stdin(
            session_id=started.process_id, chars="hey\n", yield_time_s=0.5
        )
        ended = await session.pty_write_stdin(
            session_id=started.process_id, chars="\x03", yield_time_s=5
        )

        assert b"/dev/pts/0\r\n24 80\r\n" == started.output
        assert b"hey\r\ngot hey\r\n" == answered.output
        assert (None, -signal.SIGINT) == (ended.process_id, ended.exit_code)

    async def test_one_without_a_terminal_is_polled(self, session: SandboxSession) -> None:
        started = await session.pty_exec_start(
            "echo one; sleep 0.6; echo two >&2; exit 3", yield_time_s=0.3
        )
        assert started.process_id is not None
        ended = await session.pty_write_stdin(
            session_id=started.process_id, chars="", yield_time_s=5
        )

        assert (b"one\n", b"two\n", 3) == (started.output, ended.output, ended.exit_code)
        again = await session.pty_exec_start("sleep 600", yield_time_s=0.3)
        with pytest.raises(RuntimeError, match="stdin is not available"):
            await session.pty_write_stdin(session_id=again.process_id or 0, chars="x")

    async def test_what_nobody_asks_for_fills_no_memory(self, session: SandboxSession) -> None:
        """The newest is kept."""
        script = "until [ -e go ]; do sleep 0.05; done; seq 1 3000000; echo last; touch done"
        started = await session.pty_exec_start(script, yield_time_s=0.25)
        await session.exec("touch go; until [ -e done ]; do sleep 0.05; done")
        ended = await session.pty_write_stdin(
            session_id=started.process_id or 0, chars="", yield_time_s=10
        )

        assert 1_000_000 < len(ended.output) < 5_000_000
        assert ended.output.endswith(b"3000000\nlast\n")

    async def test_they_end_with_the_session(self, session: SandboxSession) -> None:
        started = await session.pty_exec_start("sleep 616", tty=True, yield_time_s=0.3)
        await session.pty_exec_start("sleep 617", yield_time_s=0.3)
        await session.pty_terminate_all()

        with pytest.raises(PtySessionNotFoundError):
            await session.pty_write_stdin(session_id=started.process_id or 0, chars="")
        assert "sleep 61" not in await _out(session, "sleep 0.2; ps -eo args= | grep -v grep")

    async def test_no_descriptor_of_the_worker_is_left(self, session: SandboxSession) -> None:
        """Of commands, files, terminals and failures."""
        before = _open_descriptors()
        for _ in range(5):
            await session.exec("true")
            await session.pty_exec_start("true", tty=True, yield_time_s=0.3)
            await session.write(Path("x"), io.BytesIO(b"x"))
            (await session.read(Path("x"))).close()
            with pytest.raises(ExecTransportError):
                await session.exec("no-such-program", shell=False)
            with pytest.raises(ExecTimeoutError):
                await session.exec("sleep 600", timeout=0.05)
        await asyncio.sleep(0)

        assert before == _open_descriptors()


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class TestFiles:
    @pytest.mark.parametrize(
        "name", ["a b", "-n", "größe 🦀", "line\nline", "back\\slash", "deep/down/here", "x" * 255]
    )
    async def test_any_name_is_written_read_listed_and_removed(
        self, session: SandboxSession, name: str
    ) -> None:
        """With what is missing above it."""
        content = os.urandom(100_000)
        await session.write(Path(name), io.BytesIO(content))
        read = (await session.read(Path(name))).read()
        listed = [entry.path for entry in await session.ls(Path("/workspace", name).parent)]
        await session.rm(Path(name))

        assert content == read
        assert f"/workspace/{name}" in listed
        with pytest.raises(WorkspaceReadNotFoundError):
            await session.read(Path(name))

    async def test_what_it_writes_is_the_sandboxs_own(self, session: SandboxSession) -> None:
        """Commands may change it, and it what they made."""
        await session.write(Path("made/by/file"), io.BytesIO(b"one"))
        await session.mkdir("folder/new", parents=True)
        await session.exec("echo two >> made/by/file; rmdir folder/new; echo x > other")
        await session.write(Path("other"), io.BytesIO(b"three"))

        assert "onetwo\nthree" == await _out(session, "cat made/by/file other")

    async def test_entries_say_what_they_are(self, session: SandboxSession) -> None:
        await session.exec("ln -s hello.txt link; mkfifo pipe; chmod 640 hello.txt")
        entries = {Path(entry.path).name: entry for entry in await session.ls(".")}

        assert {"hello.txt": "file", "folder": "directory", "link": "symlink", "pipe": "other"} == {
            name: entry.kind.value for name, entry in entries.items()
        }
        assert ("sandbox", "sandbox", 6) == (
            entries["hello.txt"].owner,
            entries["hello.txt"].group,
            entries["hello.txt"].size,
        )
        assert "-rw-r-----" == str(entries["hello.txt"].permissions)

    @pytest.mark.parametrize("path", ["../x", "/etc/passwd", "out", "outside/x", "/proc/1/root/x"])
    async def test_nothing_outside_of_the_workspace_is_touched(
        self, session: SandboxSession, path: str
    ) -> None:
        """By whatever way a path leads there."""
        await session.exec("ln -s /usr/bin/env out; ln -s /dev/shm outside; touch /dev/shm/x")
        operations: list[Callable[[], object]] = [
            lambda: session.read(Path(path)),
            lambda: session.write(Path(path), io.BytesIO(b"x")),
            lambda: session.ls(path),
            lambda: session.mkdir(f"{path}/y", parents=True),
            lambda: session.extract(f"{path}/a.tar", io.BytesIO(_tar("a"))),
        ]
        if path != "out":  # A link itself is in the workspace, and may be removed.
            operations.append(lambda: session.rm(path, recursive=True))

        for operation in operations:
            with pytest.raises(InvalidManifestPathError):
                await operation()  # type: ignore[misc]  # each returns another type
        assert "x\n" == await _out(session, "ls /dev/shm")

    async def test_a_granted_path_is_open(self, session: SandboxSession) -> None:
        """Of the sandbox, not of the host."""
        await session.write(Path("/tmp/granted"), io.BytesIO(b"x"))

        assert b"x" == (await session.read(Path("/tmp/granted"))).read()
        assert not os.access("/tmp/granted", os.F_OK)

    @pytest.mark.parametrize("kind", ["pipe", "folder", "/dev/zero"])
    async def test_what_is_no_file_is_an_error_and_not_awaited(
        self, session: SandboxSession, kind: str
    ) -> None:
        await session.exec("mkfifo pipe; mkdir -p folder")
        if kind.startswith("/"):
            await session.exec(f"ln -s {kind} link")
            with pytest.raises(InvalidManifestPathError):
                await session.read(Path("link"))
            return

        with pytest.raises(WorkspaceArchiveReadError):
            await asyncio.wait_for(session.read(Path(kind)), 5)
        with pytest.raises(WorkspaceArchiveWriteError):
            await asyncio.wait_for(session.write(Path(kind), io.BytesIO(b"x")), 5)

    async def test_a_file_is_read_as_far_as_it_is_wanted(self, session: SandboxSession) -> None:
        """One of four gigabytes, of which nothing is on the disk, is in nobody's memory."""
        await session.exec("truncate -s 4G sparse")
        file = await asyncio.wait_for(session.read(Path("sparse")), 5)

        assert b"\0" * 10 == file.read(10)
        file.close()

    async def test_errors_are_those_of_the_local_backend(self, session: SandboxSession) -> None:
        await session.exec("mkdir closed; chmod 0 closed")

        with pytest.raises(WorkspaceReadNotFoundError):
            await session.read(Path("missing"))
        with pytest.raises(ExecNonZeroError):
            await session.ls("missing")
        with pytest.raises(ExecNonZeroError):
            await session.rm("missing")
        await session.rm("missing", recursive=True)
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.rm("folder/../hello.txt/x")
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.write(Path("closed/x"), io.BytesIO(b"x"))
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.mkdir("a/b")

    async def test_the_sandboxs_python_modules_are_not_process_1s(
        self, session: SandboxSession
    ) -> None:
        """What does the file operations imports nothing from the workspace."""
        for name in ("json", "tarfile", "grp", "files", "sitecustomize", "usercustomize"):
            await session.exec(f'echo \'open("/workspace/hijacked", "w")\' > {name}.py')
        await session.ls(".")
        (await session.persist_workspace()).close()
        await session.shutdown()
        await session.start()

        with pytest.raises(WorkspaceReadNotFoundError):
            await session.read(Path("hijacked"))


def _tar(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        member.size = 1 if kind == tarfile.REGTYPE else 0
        tar.addfile(member, io.BytesIO(b"x"))
    return buffer.getvalue()


class TestWorkspace:
    async def test_it_comes_back_as_it_was(self, session: SandboxSession) -> None:
        """Modes, links wherever they lead, empty folders, names; each name of a file is a file."""
        await session.exec(
            "mkdir -p deep/empty; ln -s /etc/hosts absolute; ln -s deep relative; ln -s no dangling"
            "; ln hello.txt second; chmod 400 hello.txt; chmod 700 deep; printf x > 'größe 🦀';"
            "mkdir ro; touch ro/x; chmod 500 ro; printf y > \"$(printf 'not\\377utf8')\""
        )
        listing = "find . -printf '%p %M %s %l\\n' | sort"
        before = await _out(session, listing)
        saved = await session.persist_workspace()
        await session.exec("chmod 700 ro; rm -rf * ")
        empty = await _out(session, "ls")
        await session.hydrate_workspace(saved)

        assert "" == empty
        skip_sizes = [line for line in before.splitlines() if " d" not in line]
        after = await _out(session, listing)
        assert skip_sizes == [line for line in after.splitlines() if " d" not in line]
        assert "drwx------" in after
        assert "dr-x------" in after

    async def test_what_no_backend_could_restore_is_refused_by_name(
        self, session: SandboxSession
    ) -> None:
        await session.exec("mkdir -p a/b; mkfifo a/b/pipe")

        with pytest.raises(WorkspaceArchiveReadError, match="/workspace/a/b/pipe"):
            await session.persist_workspace()

    async def test_ephemeral_entries_are_left_out(self, client: BubblewrapSandboxClient) -> None:
        manifest = Manifest(
            entries={"kept": File(content=b"x"), "not": File(content=b"x", ephemeral=True)}
        )
        session = await client.create(manifest=manifest)
        await session.start()
        with tarfile.open(fileobj=await session.persist_workspace()) as saved:
            names = saved.getnames()

        assert [".", "kept"] == sorted(names)

    @pytest.mark.parametrize(
        ("archive", "reason"),
        [
            (_tar("../x"), "parent traversal"),
            (_tar("a/../../x"), "parent traversal"),
            (_tar("/tmp/x"), "absolute path"),
            (_tar("x", tarfile.LNKTYPE, "hello.txt"), "hard link not allowed"),
            (_tar("x", tarfile.CHRTYPE), "special file not allowed"),
            (_tar("x", tarfile.FIFOTYPE), "special file not allowed"),
            (_tar("link/x"), "a parent is no directory"),
        ],
    )
    async def test_an_archive_that_leads_outside_is_refused(
        self, session: SandboxSession, archive: bytes, reason: str
    ) -> None:
        """Extracted by `tarfile` as it is, each would have done it."""
        await session.exec("ln -s /tmp link")

        with pytest.raises(WorkspaceArchiveWriteError) as failed:
            await session.hydrate_workspace(io.BytesIO(archive))
        assert reason == failed.value.context["reason"]
        assert "" == await _out(session, "ls /tmp")

    async def test_a_file_goes_through_no_link_of_its_archive(
        self, session: SandboxSession
    ) -> None:
        """Links are made last."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            link = tarfile.TarInfo("way")
            link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
            tar.addfile(link)
            member = tarfile.TarInfo("way/x")
            tar.addfile(member)
        buffer.seek(0)
        await session.hydrate_workspace(buffer)

        assert "" == await _out(session, "ls /tmp")

    async def test_a_broken_archive_is_an_error(self, session: SandboxSession) -> None:
        with pytest.raises(WorkspaceArchiveWriteError):
            await asyncio.wait_for(session.hydrate_workspace(io.BytesIO(b"no tar" * 10000)), 20)

    async def test_a_snapshot_is_restored_in_another_sandbox(
        self, client: BubblewrapSandboxClient, tmp_path: Path
    ) -> None:
        first = await client.create(snapshot=LocalSnapshotSpec(base_path=tmp_path))
        await first.start()
        await first.write(Path("file"), io.BytesIO(b"saved"))
        await first.stop()
        await client.delete(first)
        second = await client.resume(first.state)
        await second.start()

        assert b"saved" == (await second.read(Path("file"))).read()


class TestLifecycle:
    async def test_a_sandbox_goes_on_where_it_was_shut_down(
        self, client: BubblewrapSandboxClient, session: SandboxSession
    ) -> None:
        """With its workspace and its /tmp; its processes are gone."""
        await session.exec("echo edited > hello.txt; echo x > /tmp/x; sleep 618 >/dev/null 2>&1 &")
        await session.shutdown()
        stopped = await session.running()
        again = await client.resume(session.state)
        await again.start()

        assert not stopped
        assert await again.running()
        assert "edited\nx\n" == await _out(again, "cat hello.txt /tmp/x")
        assert "sleep 618" not in await _out(again, "ps -eo args= | grep -v grep")

    async def test_a_resume_joins_a_sandbox_that_runs(
        self, client: BubblewrapSandboxClient, session: SandboxSession
    ) -> None:
        """Which knows nothing of its clients."""
        await session.exec("(sleep 619 & echo $! > pid) >/dev/null 2>&1")
        state = type(session.state).model_validate_json(session.state.model_dump_json())
        again = await BubblewrapSandboxClient().resume(state)
        await again.start()

        assert "" == await _out(again, "kill $(cat pid) || echo gone")

    async def test_a_sandbox_whose_process_1_is_killed_does_not_run(
        self, client: BubblewrapSandboxClient, session: SandboxSession
    ) -> None:
        """What ran fails; the next command starts it again, where the workspace is."""
        sandbox = _sandbox(client, session)
        await session.exec("echo edited > hello.txt")
        running = asyncio.create_task(session.exec("touch began; sleep 600"))
        while "began" not in await _out(session, "ls"):
            pass
        _kill_process_1(sandbox)
        with pytest.raises(ExecTransportError) as failed:
            await asyncio.wait_for(running, 10)

        assert "not_running" == failed.value.context["reason"]
        assert not await session.running()
        assert "edited\n" == await _out(session, "cat hello.txt")

    async def test_after_a_shutdown_a_command_starts_nothing(self, session: SandboxSession) -> None:
        await session.shutdown()

        with pytest.raises(ExecTransportError):
            await session.exec("true")
        assert not await session.running()

    async def test_five_starts_at_once_start_one(
        self, client: BubblewrapSandboxClient, session: SandboxSession
    ) -> None:
        await session.shutdown()
        sessions = await asyncio.gather(*(client.resume(session.state) for _ in range(5)))
        await asyncio.gather(*(one.exec(f"touch /dev/shm/{n}") for n, one in enumerate(sessions)))

        assert ["0", "1", "2", "3", "4"] == (await _out(sessions[0], "ls /dev/shm")).split()

    async def test_one_whose_starter_is_killed_serves_nobody(
        self, client: BubblewrapSandboxClient, session: SandboxSession
    ) -> None:
        """Its limits might not be kept. The next start is a whole one."""
        sandbox = _sandbox(client, session)
        await session.shutdown()
        starting = await asyncio.create_subprocess_exec(
            sys.executable, "-c", START_KILLED, str(sandbox.path)
        )
        killed = await starting.wait()
        runs = [await session.running() for _ in range(20)]
        again = await client.resume(session.state)

        assert -signal.SIGKILL == killed
        assert not any(runs)
        assert "hello\n" == await _out(again, "cat hello.txt")

    async def test_a_create_that_is_cancelled_leaves_nothing(
        self, client: BubblewrapSandboxClient, provider: BubblewrapProvider
    ) -> None:
        creating = asyncio.create_task(client.create())
        await asyncio.sleep(0)
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating

        assert [] == await provider.find(client, {})

    async def test_a_create_that_fails_leaves_nothing(
        self,
        client: BubblewrapSandboxClient,
        provider: BubblewrapProvider,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The message has what bwrap said."""
        if os.geteuid() != 0:
            pytest.skip("what a user may name, its sandboxes may open")
        (home / "closed" / "inner").mkdir(parents=True)
        (home / "closed").chmod(0o700)
        monkeypatch.setenv("SANDBOX_BUBBLEWRAP_READ_ONLY", str(home / "closed" / "inner"))
        with pytest.raises(launch.SandboxDidNotStart, match=r"bwrap: .* closed to the user"):
            await client.create()

        assert [] == await provider.find(client, {})

    async def test_a_start_that_is_too_slow_leaves_nothing(
        self,
        client: BubblewrapSandboxClient,
        provider: BubblewrapProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """No process, no folder, no control group."""
        # Waits until its starter has given up.
        waits = b"import os, sys\nwhile os.read(int(sys.argv[2]), 1): pass\n"
        monkeypatch.setattr(launch, "_START_S", 1.0)
        monkeypatch.setattr(launch, "_MAIN", waits)
        with pytest.raises(launch.SandboxDidNotStart) as refused:
            await client.create()

        sandbox_id = str(refused.value).partition(":")[0]
        assert sandbox_id.startswith("bwrap-")
        assert [] == await provider.find(client, {})
        assert [] == _control_groups(sandbox_id)

    @pytest.mark.parametrize(
        "root",
        ["/", "/usr", "/usr/x", "/etc/x", "/proc/x", "/dev", "/tmp", "relative", "/x/../etc"],
    )
    async def test_a_root_that_would_hide_the_system_is_refused(
        self, client: BubblewrapSandboxClient, root: str
    ) -> None:
        with pytest.raises(ConfigurationError, match="cannot be a workspace"):
            await client.create(manifest=Manifest(root=root))

    async def test_another_root_is_where_commands_are(
        self, client: BubblewrapSandboxClient
    ) -> None:
        session = await client.create(manifest=Manifest(root="/home/agent/project"))
        await session.start()
        await session.write(Path("file"), io.BytesIO(b"x"))

        assert "/home/agent/project\n/home/agent/project\nfile\n" == await _out(
            session, "pwd; echo ~; ls"
        )


def _control_groups(sandbox_id: str) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/sandbox-bubblewrap-{sandbox_id}"))


def _kill_process_1(sandbox: Sandbox) -> None:
    with launch.connected(sandbox) as stream:
        process_1 = launch._peer(stream)
        assert process_1 is not None
        signal.pidfd_send_signal(process_1, signal.SIGKILL)
        launch._ends(process_1, stream, 5)
        os.close(process_1)
