"""Commands, processes, files and snapshots of a sandbox."""

from __future__ import annotations

import asyncio
import io
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path

import pytest
from agents.sandbox import Manifest
from agents.sandbox.errors import (
    ConfigurationError,
    ExecTimeoutError,
    ExecTransportError,
    PtySessionNotFoundError,
)
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.sandbox_session import SandboxSession
from bubblewrap_fixtures import SOON_S, out_of, sandbox_of

from sandbox_bubblewrap import (
    BubblewrapProvider,
    commands,
    launch,
)
from sandbox_bubblewrap.client import BubblewrapSandboxClient
from sandbox_bubblewrap.store import Sandbox

pytest_plugins = ["bubblewrap_fixtures"]

pytestmark = pytest.mark.xdist_group("bubblewrap")


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
        shown = await out_of(session, "id -un; pwd; hostname; echo $PPID; umask")

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
            await asyncio.wait_for(session.exec("yes"), SOON_S)

        assert not failed.value.retryable
        assert "yes" not in (await out_of(session, "ps -eo comm=")).split()

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
        ran = session.exec("sleep 611 & (sleep 612; true) & sleep 613", timeout=0.5)
        with pytest.raises(ExecTimeoutError) as failed:
            await asyncio.wait_for(ran, SOON_S)

        assert 0.5 == failed.value.timeout_s
        assert "sleep 61" not in await out_of(session, "ps -eo args= | grep -v grep")

    async def test_an_abandoned_one_is_killed(self, session: SandboxSession) -> None:
        running = asyncio.create_task(session.exec("touch began; sleep 614"))
        while "began" not in await out_of(session, "ls"):
            pass
        running.cancel()
        await asyncio.wait({running})

        assert running.cancelled()
        assert "sleep 614" not in await out_of(session, "ps -eo args= | grep -v grep")

    async def test_what_it_leaves_running_outlives_it(self, session: SandboxSession) -> None:
        """And whatever was in /tmp is there for the next."""
        await session.exec(
            "echo kept > /tmp/file; (sleep 615 & echo $! > /tmp/pid) >/dev/null 2>&1"
        )

        assert "kept\n" == await out_of(session, "kill $(cat /tmp/pid) && cat /tmp/file")

    async def test_fifty_run_at_once(self, session: SandboxSession) -> None:
        """Each waits for all others."""
        await session.mkdir("here")
        meet = "touch here/{0}; until [ $(ls here | wc -l) = 50 ]; do sleep 0.5; done; echo {0}"
        ran = [session.exec(meet.format(n), timeout=SOON_S) for n in range(50)]

        assert [f"{n}\n".encode() for n in range(50)] == [
            result.stdout for result in await asyncio.gather(*ran)
        ]

    async def test_no_zombie_is_left(self, session: SandboxSession) -> None:
        """Process 1 reaps whatever has lost its parent."""
        await session.exec("for n in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.3")

        assert "Z" not in await out_of(session, "ps -eo stat=")

    async def test_there_is_one_user(self, session: SandboxSession) -> None:
        """The message says which."""
        with pytest.raises(
            ConfigurationError, match="has one user, 'sandbox': pass no user instead of 'b'"
        ):
            await session.exec("id", user="b")

        assert 0 == (await session.exec("id", user="sandbox")).exit_code


async def output_to(session: SandboxSession, update: PtyExecUpdate, end: bytes) -> bytes:
    """Return what a process that runs has written, when it ends so."""

    async def poll() -> bytes:
        output = update.output
        while not output.endswith(end):
            more = await session.pty_write_stdin(
                session_id=update.process_id or 0, chars="", yield_time_s=0.25
            )
            output += more.output
        return output

    return await asyncio.wait_for(poll(), SOON_S)


class TestProcesses:
    async def test_a_terminal_is_one(self, session: SandboxSession) -> None:
        """With a size, a name, echo, and keys that send signals."""
        started = await session.pty_exec_start(
            "tty; stty size; read x; echo got $x; sleep 600", tty=True, yield_time_s=0.25
        )
        assert started.process_id is not None
        shown = await output_to(session, started, b"24 80\r\n")
        answered = await session.pty_write_stdin(
            session_id=started.process_id, chars="hey\n", yield_time_s=0.25
        )
        heard = await output_to(session, answered, b"got hey\r\n")
        ended = await session.pty_write_stdin(
            session_id=started.process_id, chars="\x03", yield_time_s=30
        )

        assert b"/dev/pts/0\r\n24 80\r\n" == shown
        assert b"hey\r\ngot hey\r\n" == heard
        assert (None, -signal.SIGINT) == (ended.process_id, ended.exit_code)

    async def test_one_without_a_terminal_is_polled(self, session: SandboxSession) -> None:
        started = await session.pty_exec_start(
            "echo one; until [ -e go ]; do sleep 0.02; done; echo two >&2; exit 3",
            yield_time_s=0.25,
        )
        assert started.process_id is not None
        shown = await output_to(session, started, b"one\n")
        await session.exec("touch go")
        ended = await session.pty_write_stdin(
            session_id=started.process_id, chars="", yield_time_s=30
        )

        assert (b"one\n", b"two\n", 3) == (shown, ended.output, ended.exit_code)
        again = await session.pty_exec_start("sleep 600", yield_time_s=0.3)
        with pytest.raises(RuntimeError, match="stdin is not available"):
            await session.pty_write_stdin(session_id=again.process_id or 0, chars="x")

    async def test_output_that_is_not_polled_fills_no_memory(self, session: SandboxSession) -> None:
        """The newest is kept."""
        script = "until [ -e go ]; do sleep 0.05; done; seq 1 3000000; echo last; touch done"
        started = await session.pty_exec_start(script, yield_time_s=0.25)
        await session.exec("touch go; until [ -e done ]; do sleep 0.05; done")
        ended = await session.pty_write_stdin(
            session_id=started.process_id or 0, chars="", yield_time_s=30
        )

        assert 1_000_000 < len(ended.output) < 5_000_000
        assert ended.output.endswith(b"3000000\nlast\n")

    async def test_they_end_with_the_session(self, session: SandboxSession) -> None:
        started = await session.pty_exec_start("sleep 616", tty=True, yield_time_s=0.3)
        await session.pty_exec_start("sleep 617", yield_time_s=0.3)
        await session.pty_terminate_all()

        with pytest.raises(PtySessionNotFoundError):
            await session.pty_write_stdin(session_id=started.process_id or 0, chars="")
        assert "sleep 61" not in await out_of(session, "sleep 0.2; ps -eo args= | grep -v grep")

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
        assert "edited\nx\n" == await out_of(again, "cat hello.txt /tmp/x")
        assert "sleep 618" not in await out_of(again, "ps -eo args= | grep -v grep")

    async def test_a_resume_joins_a_sandbox_that_runs(
        self, client: BubblewrapSandboxClient, session: SandboxSession
    ) -> None:
        """Which knows nothing of its clients."""
        await session.exec("(sleep 619 & echo $! > pid) >/dev/null 2>&1")
        state = type(session.state).model_validate_json(session.state.model_dump_json())
        again = await BubblewrapSandboxClient().resume(state)
        await again.start()

        assert "" == await out_of(again, "kill $(cat pid) || echo gone")

    async def test_a_sandbox_whose_process_1_is_killed_does_not_run(
        self, client: BubblewrapSandboxClient, session: SandboxSession
    ) -> None:
        """What ran fails; the next command starts it again, where the workspace is."""
        sandbox = sandbox_of(client, session)
        await session.exec("echo edited > hello.txt")
        running = asyncio.create_task(session.exec("touch began; sleep 600"))
        while "began" not in await out_of(session, "ls"):
            pass
        _kill_process_1(sandbox)
        with pytest.raises(ExecTransportError) as failed:
            await asyncio.wait_for(running, SOON_S)

        assert "not_running" == failed.value.context["reason"]
        assert not await session.running()
        assert "edited\n" == await out_of(session, "cat hello.txt")

    async def test_one_whose_bwrap_is_killed_goes_on_and_ends_with_its_delete(
        self, client: BubblewrapSandboxClient, session: SandboxSession
    ) -> None:
        """That of the host only waits for process 1, which it is the parent of."""
        sandbox = sandbox_of(client, session)
        await session.exec("sleep 600 > /dev/null 2>&1 & echo edited > hello.txt")
        process_1 = _process_1(sandbox)
        ends = os.pidfd_open(process_1)
        os.kill(_bwrap_of(process_1), signal.SIGKILL)

        assert await session.running()
        assert "edited\n" == await out_of(session, "cat hello.txt")
        assert process_1 == _process_1(sandbox)

        other = BubblewrapSandboxClient()
        again = await other.resume(session.state)
        assert "edited\n" == await out_of(again, "cat hello.txt")
        await other.delete(again)

        # With process 1 of a namespace, the kernel ends all processes in it.
        assert select.select([ends], [], [], 0)[0]
        os.close(ends)
        assert not sandbox.path.exists()

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

        assert ["0", "1", "2", "3", "4"] == (await out_of(sessions[0], "ls /dev/shm")).split()

    async def test_one_whose_starter_is_killed_serves_nobody(
        self, client: BubblewrapSandboxClient, session: SandboxSession
    ) -> None:
        """Its limits might not be kept. The next start is a whole one."""
        sandbox = sandbox_of(client, session)
        await session.shutdown()
        starting = await asyncio.create_subprocess_exec(
            sys.executable, "-c", START_KILLED, str(sandbox.path)
        )
        killed = await starting.wait()
        runs = [await session.running() for _ in range(20)]
        again = await client.resume(session.state)

        assert -signal.SIGKILL == killed
        assert not any(runs)
        assert "hello\n" == await out_of(again, "cat hello.txt")

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
        with pytest.raises(launch.SandboxDidNotStart, match=r"bwrap: .* has no access to it"):
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

        assert "/home/agent/project\n/home/agent/project\nfile\n" == await out_of(
            session, "pwd; echo ~; ls"
        )


def _control_groups(sandbox_id: str) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/sandbox-bubblewrap-{sandbox_id}"))


def _process_1(sandbox: Sandbox) -> int:
    size = struct.calcsize("3i")
    with launch.connected(sandbox) as stream:
        peer = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", peer)[0])


def _bwrap_of(process_1: int) -> int:
    status = Path(f"/proc/{process_1}/status").read_text(encoding="utf-8")
    pid = int(status.partition("PPid:")[2].split()[0])
    assert "bwrap\n" == Path(f"/proc/{pid}/comm").read_text(encoding="utf-8")
    return pid


def _kill_process_1(sandbox: Sandbox) -> None:
    with launch.connected(sandbox) as stream:
        process_1 = launch._peer(stream)
        assert process_1 is not None
        signal.pidfd_send_signal(process_1, signal.SIGKILL)
        launch._ends(process_1, stream, 5)
        os.close(process_1)
