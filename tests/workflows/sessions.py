"""Workflows that use a sandbox session directly, without an agent."""

from __future__ import annotations

import gc
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents.sandbox import Manifest
from agents.sandbox.capabilities import LocalDirLazySkillSource, Skills
from agents.sandbox.entries import File, LocalDir
from agents.sandbox.errors import SandboxError
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.workflow import WorkflowSandboxSession, temporal_sandbox_client

MANIFEST = Manifest(
    entries={
        "hello.txt": File(content=b"hello\n"),
        "data.bin": File(content=b"\xff\xfe\x00"),
    }
)


@asynccontextmanager
async def new_session(
    provider: str, manifest: Manifest = MANIFEST, config: ActivityConfig | None = None
) -> AsyncIterator[WorkflowSandboxSession]:
    """Yield a started session; its sandbox is deleted afterwards."""
    client = temporal_sandbox_client(provider, config)
    session = await client.create(manifest=manifest)
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


def lazy_skills(folder: str) -> Skills:
    """Return the capability for a folder of skills that are loaded when they are needed."""
    return Skills(lazy_from=LocalDirLazySkillSource(source=LocalDir(src=Path(folder))))


@workflow.defn
class EveryOperation:
    """Performs every operation of the table once, and reports what came back.

    Those about skills only with a folder of them on the worker's disk.
    """

    @workflow.run
    async def run(
        self, provider: str, archive: bytes, skills_folder: str | None = None
    ) -> dict[str, Any]:
        client = temporal_sandbox_client(provider)
        seen: dict[str, Any] = {}
        created = await client.create(
            manifest=MANIFEST, options=UnixLocalSandboxClientOptions(exposed_ports=(8080,))
        )
        session = await client.resume(created.state)
        async with session:
            seen["running"] = await session.running()
            ran = await session.exec("cat hello.txt; echo oops >&2; exit 3")
            seen["exec"] = [ran.stdout.decode(), ran.stderr.decode(), ran.exit_code]
            started = await session.pty_exec_start(
                "read line; echo got $line", tty=True, yield_time_s=0.3
            )
            assert started.process_id is not None
            written = await session.pty_write_stdin(
                session_id=started.process_id, chars="it\n", yield_time_s=20
            )
            seen["pty"] = [b"got it" in written.output, written.exit_code]
            await session.pty_terminate_all()
            seen["read"] = (await session.read(Path("data.bin"))).read().hex()
            await session.write(Path("new.txt"), io.BytesIO(b"new"))
            await session.mkdir("a/b", parents=True)
            await session.extract("a/x.tar", io.BytesIO(archive))
            seen["ls"] = sorted(Path(entry.path).name for entry in await session.ls("a"))
            await session.rm("a/b", recursive=True)
            seen["apply_patch"] = await session.apply_patch(
                {"type": "update_file", "path": "hello.txt", "diff": "@@\n-hello\n+goodbye\n"}
            )
            path = await session._validate_path_access("hello.txt")
            seen["validate_path_access"] = path.name
            workspace = await session.persist_workspace()
            await session.rm("hello.txt")
            await session.hydrate_workspace(workspace)
            seen["hydrated"] = (await session.read(Path("hello.txt"))).read().decode()
            await session.apply_manifest()
            seen["manifest applied"] = (await session.read(Path("hello.txt"))).read().decode()
            extra = Path(session.state.manifest.root) / "extra.txt"
            await session._apply_entry_batch(
                [(extra, File(content=b"extra"))], base_dir=session._manifest_base_dir()
            )
            seen["entry applied"] = (await session.read(Path("extra.txt"))).read().decode()
            endpoint = await session.resolve_exposed_port(8080)
            seen["port"] = endpoint.url_for("http")
            if skills_folder is not None:
                skills = lazy_skills(skills_folder)
                skills.bind(session)
                listed = await skills._skill_metadata(session.state.manifest)
                seen["list_skills"] = [skill.name for skill in listed]
                seen["load_skill"] = await skills.load_skill(listed[0].name)
        await client.delete(session)
        return seen


@workflow.defn
class UncaughtError:
    """Lets the error of a missing file escape."""

    @workflow.run
    async def run(self, provider: str) -> None:
        async with new_session(provider) as session:
            await session.read(Path("missing.txt"))


@workflow.defn
class CaughtErrors:
    """Catches errors by the SDK's and Python's classes."""

    @workflow.run
    async def run(self, provider: str) -> dict[str, str]:
        seen: dict[str, str] = {}
        async with new_session(provider) as session:
            try:
                await session.read(Path("missing.txt"))
            except SandboxError as error:
                seen["missing"] = f"{type(error).__name__} {error.error_code} {error}"
            try:
                await session.exec("sleep 30", timeout=0.2)
            except SandboxError as error:
                seen["slow"] = f"{type(error).__name__} {error.error_code} {error}"
            started = await session.pty_exec_start("sleep 30", yield_time_s=0.3)
            try:
                await session.pty_write_stdin(session_id=started.process_id or 0, chars="x")
            except RuntimeError as error:
                seen["no stdin"] = f"{type(error).__name__} {error}"
            try:
                await session.read(Path("../outside"))
            except SandboxError as error:
                seen["outside"] = f"{type(error).__name__} {error.error_code} {error}"
        return seen


CAUGHT_ERRORS = {
    "missing": "WorkspaceReadNotFoundError workspace_read_not_found file not found: missing.txt",
    "slow": "ExecTimeoutError exec_timeout command timed out",
    "no stdin": "OperationRuntimeError stdin is not available for this process",
    "outside": "InvalidManifestPathError invalid_manifest_path "
    "manifest path must not escape root: ../outside",
}
"""What `CaughtErrors` sees, whatever the provider."""


@workflow.defn
class Create:
    """Creates a session with the given options and provider, and deletes it."""

    @workflow.run
    async def run(self, provider: str, with_local_options: bool = False) -> None:
        options = UnixLocalSandboxClientOptions() if with_local_options else None
        client = temporal_sandbox_client(provider)
        await client.delete(await client.create(options=options))


@workflow.defn
class DeleteLater:
    """Creates a session, and deletes it when it is told to."""

    def __init__(self) -> None:
        self._created = False
        self._told = False

    @workflow.run
    async def run(self, provider: str) -> None:
        client = temporal_sandbox_client(provider)
        session = await client.create()
        self._created = True
        await workflow.wait_condition(lambda: self._told)
        await client.delete(session)

    @workflow.update
    async def created(self) -> None:
        """Return once there is a sandbox."""
        await workflow.wait_condition(lambda: self._created)

    @workflow.signal
    def delete(self) -> None:
        """Delete it."""
        self._told = True


class Commands:
    """Base of workflows that run the commands they are sent, one after another."""

    def __init__(self) -> None:
        self._commands: list[str] = []
        self._outputs: list[str] = []
        self._finished = False
        self._workspace = ""

    async def _run_commands(
        self, session: SandboxSession, special: Mapping[str, Callable[[], Awaitable[str]]]
    ) -> None:
        while not self._finished or self._commands:
            await workflow.wait_condition(lambda: bool(self._commands) or self._finished)
            while self._commands:
                command = self._commands[0]
                if command in special:
                    output = await special[command]()
                else:
                    output = (await session.exec(command)).stdout.decode()
                self._workspace = session.state.manifest.root
                self._commands.pop(0)
                self._outputs.append(output)

    @workflow.update
    async def do(self, command: str) -> str:
        """Run one command and return its output."""
        position = len(self._outputs) + len(self._commands)
        self._commands.append(command)
        await workflow.wait_condition(lambda: len(self._outputs) > position)
        return self._outputs[position]

    @workflow.query
    def workspace(self) -> str:
        """Return the root of the session's workspace."""
        return self._workspace

    @workflow.signal
    def finish(self) -> None:
        """End the session."""
        self._finished = True


@workflow.defn
class StepByStep(Commands):
    """Keeps a session open; "restart" starts it once more."""

    @workflow.run
    async def run(self, provider: str) -> list[str]:
        async with new_session(provider) as session:

            async def restart() -> str:
                await session.start()
                return "restarted"

            await self._run_commands(session, {"restart": restart})
        return self._outputs


@workflow.defn(sandboxed=False)
class CollectsGarbage:
    """Has Python look for unreachable objects, as it may do at any time."""

    @workflow.run
    async def run(self) -> None:
        gc.collect()


@workflow.defn
class Terminal:
    """Opens a terminal, runs a few commands beside it, and then speaks to it."""

    @workflow.run
    async def run(self, word: str) -> str:
        async with new_session("local") as session:
            started = await session.pty_exec_start(
                "read word; echo heard $word", tty=True, yield_time_s=0.3
            )
            for _ in range(5):
                await session.exec("true")
            assert started.process_id is not None
            update = await session.pty_write_stdin(
                session_id=started.process_id, chars=f"{word}\n", yield_time_s=20
            )
            return update.output.decode().split("\r\n")[-2]


@workflow.defn
class Watch:
    """Starts a process without a terminal, runs a few commands beside it, and then polls it."""

    @workflow.run
    async def run(self, provider: str, word: str) -> str:
        async with new_session(provider) as session:
            update = await session.pty_exec_start(f"sleep 2; echo said {word}", yield_time_s=0.25)
            output = update.output
            for _ in range(5):
                await session.exec("true")
            while update.process_id is not None:
                update = await session.pty_write_stdin(
                    session_id=update.process_id, chars="", yield_time_s=5
                )
                output += update.output
            return output.decode().strip()


@workflow.defn
class ResizeTerminal:
    """Opens a terminal, gives it another size, and asks for that."""

    @workflow.run
    async def run(self, provider: str) -> str:
        async with new_session(provider) as session:
            started = await session.pty_exec_start(
                "read line; stty size", tty=True, yield_time_s=0.3
            )
            assert started.process_id is not None
            assert isinstance(session, WorkflowSandboxSession)
            await session.pty_resize(started.process_id, rows=50, columns=132)
            update = await session.pty_write_stdin(
                session_id=started.process_id, chars="\n", yield_time_s=20
            )
            return update.output.decode().strip()


@workflow.defn
class CreateMany:
    """Creates some sessions, one after another, and then deletes them."""

    @workflow.run
    async def run(self, number: int) -> None:
        client = temporal_sandbox_client("local")
        sessions = [await client.create() for _ in range(number)]
        for session in sessions:
            await client.delete(session)


@workflow.defn
class ResumeDeleted:
    """Deletes a sandbox and resumes a state that was saved before; says what it finds then."""

    @workflow.run
    async def run(self, provider: str) -> str:
        client = temporal_sandbox_client(provider)
        first = await client.create()
        await first.start()
        await first.exec("echo old > file")
        saved = client.serialize_session_state(first.state)
        await client.delete(first)
        session = await client.resume(client.deserialize_session_state(saved))
        await session.start()
        said = (await session.exec("ls; echo empty")).stdout.decode()
        await client.delete(session)
        return said
