"""The loopback stand-in for Daytona, driven by the real SDK's Daytona sandbox client."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from agents.extensions.sandbox.daytona import (
    DaytonaSandboxClient,
    DaytonaSandboxClientOptions,
    DaytonaSandboxSessionState,
)
from agents.sandbox import (
    ExecTimeoutError,
    LocalSnapshotSpec,
    Manifest,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.entries import File
from agents.sandbox.errors import InvalidManifestPathError
from agents.sandbox.session import SandboxSession
from agents.sandbox.session.pty_types import PtyExecUpdate
from daytona import (
    AsyncDaytona,
    CreateSandboxFromSnapshotParams,
    DaytonaAuthenticationError,
    DaytonaConfig,
    DaytonaConflictError,
    DaytonaNotFoundError,
    DaytonaTimeoutError,
    ListSandboxesQuery,
)
from daytona.common.pty import PtySize
from daytona_loopback import DaytonaLoopback
from daytona_loopback_sandbox import PathMap, Sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the loopback needs /proc")

# The command must not end before the daemon has left the session that is killed with it.
LEAVE_A_DAEMON = (
    "setsid sh -c 'echo > away; exec sleep 300' >/dev/null 2>&1 & "
    "until test -e away; do sleep 0.05; done"
)
ROOTS = ("/workspace", "/home/daytona/workspace")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DaytonaLoopback]:
    """Provide a running server."""
    with DaytonaLoopback(tmp_path) as running:
        yield running


@pytest_asyncio.fixture
async def client(server: DaytonaLoopback) -> AsyncIterator[DaytonaSandboxClient]:
    """Provide an SDK client of the server."""
    async with DaytonaSandboxClient(api_key=server.api_key, api_url=server.api_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def daytona(server: DaytonaLoopback) -> AsyncIterator[AsyncDaytona]:
    """Provide a client of the server that is Daytona's own."""
    config = DaytonaConfig(api_key=server.api_key, api_url=server.api_url)
    async with AsyncDaytona(config) as opened:
        yield opened


@pytest_asyncio.fixture
async def session(client: DaytonaSandboxClient) -> SandboxSession:
    """Provide a started session of a new sandbox."""
    return await started(client)


async def started(client: DaytonaSandboxClient, root: str = "/workspace") -> SandboxSession:
    """Create a sandbox with two files and start its session."""
    manifest = Manifest(
        root=root,
        entries={"a.txt": File(content=b"one"), "src/b.txt": File(content=b"two\n")},
    )
    options = DaytonaSandboxClientOptions(env_vars={"GREETING": "hello"}, exposed_ports=(8080,))
    session = await client.create(manifest=manifest, options=options)
    await session.start()
    return session


def sandbox_of(server: DaytonaLoopback, session: SandboxSession) -> Sandbox:
    """Return the server's side of a session."""
    assert isinstance(session.state, DaytonaSandboxSessionState)
    return server.sandboxes[session.state.sandbox_id]


def names_in(directory: Path) -> list[str]:
    """Return what a directory of this machine holds."""
    return [path.name for path in directory.iterdir()]


async def collect(session: SandboxSession, update: PtyExecUpdate, until: bytes) -> bytes:
    """Return the output of a running process up to some text."""
    output = update.output
    while until not in output:
        assert update.process_id is not None, output
        update = await session.pty_write_stdin(
            session_id=update.process_id, chars="", yield_time_s=1
        )
        output += update.output
    return output


@pytest.mark.parametrize("root", ROOTS)
async def test_manifest_files_land_inside_the_sandbox_directory(
    server: DaytonaLoopback, client: DaytonaSandboxClient, root: str
) -> None:
    """Both the SDK's and Daytona's default roots map into the sandbox's own directory."""
    session = await started(client, root)
    sandbox = sandbox_of(server, session)
    assert sandbox.directory == server.root / sandbox.id
    assert (sandbox.directory / root.lstrip("/") / "src/b.txt").read_bytes() == b"two\n"
    assert (await session.read(Path("a.txt"))).read() == b"one"
    assert (await session.read(Path(root, "src/b.txt"))).read() == b"two\n"


@pytest.mark.parametrize("root", ROOTS)
async def test_commands_see_the_paths_of_the_sandbox(
    server: DaytonaLoopback, client: DaytonaSandboxClient, root: str
) -> None:
    """What a command prints never shows where the sandbox is on this machine."""
    session = await started(client, root)
    result = await session.exec(
        f"pwd; pwd -P; realpath {root}/src; cat nope; echo $HOME; cd ..; pwd"
    )
    parent = str(Path(root).parent)
    assert result.stdout.decode().split() == [root, root, f"{root}/src", "/home/daytona", parent]
    assert str(server.root) not in result.stderr.decode()
    result = await session.exec("ls", f"{root}/nope", "/tmp/nope", shell=False)
    assert f"{root}/nope" in result.stderr.decode()
    assert str(server.root) not in result.stderr.decode()


async def test_exec_returns_output_and_exit_code(session: SandboxSession) -> None:
    """Both streams arrive apart and byte for byte, and a failure is a result."""
    result = await session.exec("printf out; printf 'érr' >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == (b"out", "érr".encode(), 3)
    result = await session.exec("true")
    assert (result.stdout, result.stderr, result.exit_code) == (b"", b"", 0)
    result = await session.exec("echo $GREETING; kill -9 $$")
    assert (result.stdout, result.exit_code) == (b"hello\n", 137)


async def test_commands_inherit_no_secrets_of_this_process(
    session: SandboxSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command's environment is the sandbox's."""
    monkeypatch.setenv("OPENAI_API_KEY", "s3cr3t")
    assert b"s3cr3t" not in (await session.exec("env")).stdout


async def test_exec_timeout_kills_the_process_tree(
    server: DaytonaLoopback, session: SandboxSession
) -> None:
    """After a timeout neither the command nor what it started in the background is left."""
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep 300 & sleep 301", timeout=0.5)
    assert sandbox_of(server, session).processes() == set()


async def test_concurrent_commands_do_not_wait_for_each_other(session: SandboxSession) -> None:
    """A command can wait for something that another one does."""
    waiting = session.exec("mkfifo pipe; cat pipe", timeout=20)
    writing = session.exec("until [ -p pipe ]; do :; done; echo met > pipe", timeout=20)
    result, _ = await asyncio.gather(waiting, writing)
    assert result.stdout == b"met\n"


async def test_reading_a_missing_file_is_not_found(session: SandboxSession) -> None:
    """A missing file is the SDK's not-found error."""
    with pytest.raises(WorkspaceReadNotFoundError):
        await session.read(Path("nope.txt"))


async def test_a_path_out_of_the_workspace_is_refused(session: SandboxSession) -> None:
    """The SDK's own check of resolved paths works on the mapped ones."""
    await session.exec("ln -s /tmp escape; ln -s /workspace/src inside")
    with pytest.raises(InvalidManifestPathError):
        await session.read(Path("escape/x"))
    assert (await session.read(Path("inside/b.txt"))).read() == b"two\n"


async def test_files_can_be_written_listed_and_removed(session: SandboxSession) -> None:
    """Files written by the SDK, whatever their bytes and name, are there for commands."""
    data = bytes(range(256)) * 20_000 + b"\r\n--"
    await session.mkdir(Path("deep/er"), parents=True)
    await session.write(Path("deep/er/naïve file.bin"), io.BytesIO(data))
    assert (await session.read(Path("deep/er/naïve file.bin"))).read() == data
    result = await session.exec("wc", "-c", "deep/er/naïve file.bin", shell=False)
    assert result.stdout.split()[0] == str(len(data)).encode()
    listed = {Path(entry.path).name for entry in await session.ls(Path())}
    assert listed == {"a.txt", "src", "deep"}
    await session.rm(Path("deep"), recursive=True)
    assert (await session.exec("test -e deep")).exit_code == 1


async def test_background_process_streams_its_output(session: SandboxSession) -> None:
    """A process without a terminal is followed while it runs, with its exit code at the end."""
    update = await session.pty_exec_start(
        "echo first; until [ -e go ]; do sleep 0.05; done; pwd >&2; exit 4", yield_time_s=1
    )
    assert await collect(session, update, b"\n") == b"first\n"
    assert update.process_id is not None
    await session.write(Path("go"), io.BytesIO(b""))
    process_id: int | None = update.process_id
    output = b""
    while process_id is not None:
        update = await session.pty_write_stdin(session_id=process_id, chars="", yield_time_s=5)
        process_id, output = update.process_id, output + update.output
    assert (output, update.exit_code) == (b"/workspace\n", 4)


async def test_terminal_takes_input(server: DaytonaLoopback, session: SandboxSession) -> None:
    """A terminal is one, is typed into and ends with the exit code of its shell."""
    update = await session.pty_exec_start(
        "test -t 0 && stty size; read line; echo got:$line; ls -d /workspace/src",
        tty=True,
        yield_time_s=1,
    )
    output = await collect(session, update, b"24 80")
    assert update.process_id is not None
    update = await session.pty_write_stdin(
        session_id=update.process_id, chars="some words\n", yield_time_s=1
    )
    output += await collect(session, update, b"\n/workspace/src")
    assert b"got:some words" in output
    assert str(server.root).encode() not in output
    assert update.process_id is not None
    update = await session.pty_write_stdin(
        session_id=update.process_id, chars="exit 5\n", yield_time_s=10
    )
    assert (update.process_id, update.exit_code) == (None, 5)


async def test_terminating_terminals_kills_their_processes(
    server: DaytonaLoopback, session: SandboxSession
) -> None:
    """No job of a terminal's shell survives it, not even one in a process group of its own."""
    update = await session.pty_exec_start("sleep 300", tty=True, yield_time_s=0.5)
    assert update.process_id is not None
    await session.pty_write_stdin(session_id=update.process_id, chars="\x1a", yield_time_s=0.5)
    await session.pty_write_stdin(session_id=update.process_id, chars="bg\n", yield_time_s=0.5)
    assert sandbox_of(server, session).processes()
    await session.pty_terminate_all()
    assert sandbox_of(server, session).processes() == set()


async def test_workspace_moves_to_a_second_sandbox(
    server: DaytonaLoopback, client: DaytonaSandboxClient, session: SandboxSession
) -> None:
    """A persisted workspace hydrates into another sandbox and leaves no archive behind."""
    await session.exec(
        "echo edited > a.txt; mkdir bin; echo 'echo ran' > bin/run; chmod 755 bin/run"
    )
    archive = await session.persist_workspace()
    other = await client.create(
        manifest=Manifest(root=ROOTS[1]), options=DaytonaSandboxClientOptions()
    )
    await other.start()
    await other.hydrate_workspace(archive)
    assert (await other.read(Path("a.txt"))).read() == b"edited\n"
    assert (await other.exec("bin/run")).stdout == b"ran\n"
    assert list(server.root.glob("*/tmp/*.tar")) == []


async def test_resuming_a_live_sandbox_keeps_edits(
    server: DaytonaLoopback, client: DaytonaSandboxClient, session: SandboxSession
) -> None:
    """A session resumed from its serialised state finds the sandbox as it was left."""
    await session.exec("echo edited > a.txt")
    payload = client.serialize_session_state(session.state)
    async with DaytonaSandboxClient(api_key=server.api_key, api_url=server.api_url) as second:
        resumed = await second.resume(second.deserialize_session_state(payload))
        await resumed.start()
        assert (await resumed.read(Path("a.txt"))).read() == b"edited\n"
    assert server.created == 1


async def test_a_paused_sandbox_keeps_its_files_and_resumes(
    server: DaytonaLoopback, client: DaytonaSandboxClient
) -> None:
    """Pausing kills the processes, keeps the directory and can be resumed from."""
    options = DaytonaSandboxClientOptions(pause_on_exit=True)
    session = await client.create(manifest=Manifest(), options=options)
    await session.start()
    await session.exec(f"echo kept > a.txt; {LEAVE_A_DAEMON}")
    sandbox = sandbox_of(server, session)
    assert sandbox.processes()
    await client.delete(session)
    assert (sandbox.state, sandbox.processes()) == ("stopped", set())
    assert not await session.running()
    resumed = await client.resume(session.state)
    await resumed.start()
    assert (await resumed.read(Path("a.txt"))).read() == b"kept\n"
    assert await resumed.running()


async def test_delete_leaves_nothing(
    server: DaytonaLoopback, client: DaytonaSandboxClient, session: SandboxSession
) -> None:
    """Deleting removes the sandbox, its directory and even a process that left its session."""
    await session.exec("mkdir locked; touch locked/x; chmod 500 locked")
    await session.exec(LEAVE_A_DAEMON)
    await session.pty_exec_start("sleep 300", tty=True, yield_time_s=0.5)
    sandbox = sandbox_of(server, session)
    assert len(sandbox.processes()) >= 3
    await client.delete(session)
    assert sandbox.processes() == set()
    assert names_in(server.root) == []
    assert dict(server.sandboxes) == {}
    assert (server.created, server.deleted) == (1, 1)
    assert not await session.running()


async def test_a_deleted_sandbox_is_recreated_on_resume(
    server: DaytonaLoopback, client: DaytonaSandboxClient, session: SandboxSession
) -> None:
    """Resuming what is gone creates a new sandbox from the manifest."""
    await client.delete(session)
    resumed = await client.resume(session.state)
    await resumed.start()
    assert (await resumed.read(Path("a.txt"))).read() == b"one"
    assert (server.created, len(server.sandboxes)) == (2, 1)


async def test_a_snapshot_restores_a_deleted_sandbox(
    client: DaytonaSandboxClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What the SDK snapshots when a session stops is there when the session resumes."""
    session = await client.create(
        snapshot=LocalSnapshotSpec(base_path=tmp_path_factory.mktemp("snapshots")),
        manifest=Manifest(entries={"a.txt": File(content=b"one")}),
        options=DaytonaSandboxClientOptions(),
    )
    await session.start()
    await session.exec("echo edited > a.txt")
    await session.stop()
    await client.delete(session)
    resumed = await client.resume(session.state)
    await resumed.start()
    assert (await resumed.read(Path("a.txt"))).read() == b"edited\n"


async def test_stopping_the_server_leaves_nothing(tmp_path: Path) -> None:
    """Sandboxes that were not deleted go with the server."""
    with DaytonaLoopback(tmp_path) as server:
        async with DaytonaSandboxClient(api_key=server.api_key, api_url=server.api_url) as client:
            session = await started(client)
            await session.exec(LEAVE_A_DAEMON)
            sandbox = sandbox_of(server, session)
            assert sandbox.processes()
    assert sandbox.processes() == set()
    assert names_in(tmp_path) == []


async def test_exposed_port_is_on_this_machine(session: SandboxSession) -> None:
    """A signed preview URL is the port itself."""
    endpoint = await session.resolve_exposed_port(8080)
    assert (endpoint.host, endpoint.port, endpoint.tls) == ("127.0.0.1", 8080, False)


async def test_wrong_api_key_is_refused(server: DaytonaLoopback) -> None:
    """A wrong key is Daytona's authentication error and creates nothing."""
    async with DaytonaSandboxClient(api_key="wrong", api_url=server.api_url) as client:
        with pytest.raises(DaytonaAuthenticationError):
            await client.create(options=DaytonaSandboxClientOptions())
    assert server.created == 0


async def test_sandboxes_are_listed_by_label(
    server: DaytonaLoopback, daytona: AsyncDaytona
) -> None:
    """Labels given at creation or replaced later select what a listing returns."""
    first = await daytona.create(CreateSandboxFromSnapshotParams(labels={"run": "1"}, name="first"))
    await daytona.create(CreateSandboxFromSnapshotParams(labels={"run": "2"}))
    query = ListSandboxesQuery(labels={"run": "1"})
    assert [found.id async for found in daytona.list(query)] == [first.id]
    await first.set_labels({"run": "2"})
    assert [found.id async for found in daytona.list(query)] == []
    assert server.sandboxes[first.id].labels == {"run": "2"}
    assert (await daytona.get("first")).id == first.id
    with pytest.raises(DaytonaConflictError):
        await daytona.create(CreateSandboxFromSnapshotParams(name="first"))
    with pytest.raises(DaytonaNotFoundError):
        await daytona.get(str(uuid.uuid4()))


async def test_execute_honours_its_options(server: DaytonaLoopback, daytona: AsyncDaytona) -> None:
    """A command without a session gets a directory, an environment and a time limit."""
    sandbox = await daytona.create()
    result = await sandbox.process.exec("pwd; echo $WHERE", cwd="/tmp", env={"WHERE": "/tmp/x"})
    assert (result.exit_code, result.result) == (0, "/tmp\n/tmp/x\n")
    with pytest.raises(DaytonaTimeoutError):
        await sandbox.process.exec("sleep 300", timeout=1)
    assert server.sandboxes[sandbox.id].processes() == set()
    with pytest.raises(DaytonaNotFoundError):
        await sandbox.process.get_session_command("none", "none")


async def test_a_terminal_is_resized_and_connected_to_again(daytona: AsyncDaytona) -> None:
    """A terminal outlives the connection that created it."""
    sandbox = await daytona.create()
    output: asyncio.Queue[bytes] = asyncio.Queue()
    handle = await sandbox.process.create_pty_session(
        "shell", output.put, envs={"MINE": "set"}, pty_size=PtySize(cols=90, rows=30)
    )
    assert (await handle.resize(PtySize(cols=100, rows=40))).cols == 100
    await handle.disconnect()
    again = await sandbox.process.connect_pty_session("shell", output.put)
    await again.send_input("stty size; echo $MINE; exit\n")
    assert (await again.wait()).exit_code == 0
    seen = b"".join([output.get_nowait() for _ in range(output.qsize())])
    assert b"\n40 100" in seen
    assert b"\nset" in seen


def test_paths_are_rewritten_only_where_they_start(tmp_path: Path) -> None:
    """A prefix inside a longer word or path stays, and rewriting twice is rewriting once."""
    paths = PathMap(tmp_path / "id")
    real = str(tmp_path / "id")
    text = "cat /tmp/a '/workspace' X=/home/daytona/b $HOME/tmp /tmpx ./tmp/x /workspace-2 s/tmp/x/"
    rewritten = paths.to_real(text)
    assert rewritten == (
        f"cat {real}/tmp/a '{real}/workspace' X={real}/home/daytona/b "
        "$HOME/tmp /tmpx ./tmp/x /workspace-2 s/tmp/x/"
    )
    assert paths.to_real(rewritten) == rewritten
    assert paths.to_virtual(rewritten.encode()) == text.encode()
    assert paths.to_virtual(f"{real}\n".encode()) == b"/\n"
    assert paths.locate("/tmp/../../../etc/passwd") == tmp_path / "id/etc/passwd"
    assert paths.locate("notes.txt") == tmp_path / "id/home/daytona/notes.txt"


def test_a_path_split_between_reads_is_still_rewritten(tmp_path: Path) -> None:
    """Output is held back while it could be the beginning of the sandbox's directory."""
    paths = PathMap(tmp_path / "id")
    output = f"in {tmp_path / 'id'}/tmp/x\n{tmp_path}/other {tmp_path / 'id'}\n".encode()
    for size in range(1, len(output)):
        seen, held = b"", b""
        for start in range(0, len(output), size):
            whole, held = paths.split_incomplete(held + output[start : start + size])
            seen += paths.to_virtual(whole)
        seen += paths.to_virtual(held)
        assert seen == f"in /tmp/x\n{tmp_path}/other /\n".encode()


def test_the_script_serves_until_terminated(tmp_path: Path) -> None:
    """As a script it prints the environment to use and leaves nothing when terminated."""
    script = Path(__file__).with_name("daytona_loopback.py")
    command = [sys.executable, str(script), "--root", str(tmp_path)]
    use = (
        "import asyncio, daytona\n"
        "async def main():\n"
        "    async with daytona.AsyncDaytona() as client:\n"
        "        sandbox = await client.create()\n"
        "        print((await sandbox.process.exec('echo ran; pwd')).result)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        environment = json.loads(process.stdout.readline())
        done = subprocess.run(
            [sys.executable, "-c", use],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout.split() == ["ran", "/home/daytona"]
        assert len(names_in(tmp_path)) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert names_in(tmp_path) == []
