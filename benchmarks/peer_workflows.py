"""The workflows that `peer.py` runs on both sides."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import FailureError
from temporalio.workflow import ActivityConfig

# This module is loaded once more for every workflow; what it imports is not.
with workflow.unsafe.imports_passed_through():
    from agents import Runner
    from agents.items import ToolCallOutputItem
    from agents.run import RunConfig
    from agents.run_config import SandboxRunConfig
    from agents.sandbox import Manifest, SandboxAgent, capabilities, entries
    from agents.sandbox.errors import SandboxError
    from agents.sandbox.sandboxes import docker, unix_local
    from agents.sandbox.session.sandbox_client import BaseSandboxClient
    from agents.sandbox.session.sandbox_session import SandboxSession
    from agents.sandbox.snapshot import (
        LocalSnapshotSpec,
        NoopSnapshotSpec,
        RemoteSnapshotSpec,
        SnapshotSpec,
    )
    from temporalio.openai_agents.workflow import temporal_sandbox_client as peer_sandbox_client

    from sandbox_core.storage import SNAPSHOT_DEPENDENCY
    from sandbox_core.workflow import temporal_sandbox_client

OURS, PEER = SIDES = ("sandbox-core", "peer")
RATIO = "peer / sandbox-core"
COMMANDS, FILE_BYTES, MEGABYTE = 50, 2_000, 1_000_000
MANIFESTS = (0, 50, 200)
SIZES = (1.0, 1.5, 2.0, 10.0, 100.0)
SNAPSHOT, ARCHIVE = "snapshot", "archive"
MOVES = {SNAPSHOT: (5.0, 50.0, 500.0), ARCHIVE: (1.0, 5.0, 50.0)}
MOVED_FILES = 50
SKILLS = {"greet": "Say hello.", "count": "Count to three."}
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a workflow is to do, and with whose client."""

    side: str = ""
    provider: str = "local"
    what: str = ""
    skills: str = ""
    folder: str = ""
    files: int = 0
    size: int = 0
    commands: int = 0
    noops: bool = False
    local_activities: bool = False
    image: str = ""


LIFECYCLE = 5
"""The activities of a session that is opened and closed: create, start, stop, shutdown, delete."""


@dataclass(kw_only=True)
class Report:
    """What the sandbox or the tools answered, or the error, and the seconds of each step."""

    answer: str = ""
    error: str = ""
    steps: list[float] = field(default_factory=list)
    noops: list[float] = field(default_factory=list)


def sandbox_client(task: Task, config: ActivityConfig | None = None) -> BaseSandboxClient[Any]:
    """Return the client of one side: all that differs in a workflow, but for a snapshot."""
    if task.side == OURS:
        local = task.local_activities
        return temporal_sandbox_client(task.provider, config, local_activities=local)
    peer: BaseSandboxClient[Any] = peer_sandbox_client(task.provider, config)
    return peer


def queues_beside(task_queue: str) -> list[str]:
    """Return the queues of the workers between which a workspace moves."""
    return [f"{task_queue}-from", f"{task_queue}-to"]


def snapshot_spec(task: Task) -> SnapshotSpec:
    """Return where one side saves workspaces: sandbox-core's storage, or a directory."""
    if task.side == OURS:
        return RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)
    return LocalSnapshotSpec(base_path=Path(task.folder, "snapshots"))


@asynccontextmanager
async def new_session(task: Task) -> AsyncIterator[SandboxSession]:
    """Yield a started session with some text files; its sandbox is deleted afterwards."""
    text = "".join(f"{line:03} abcdefghijklmno\n" for line in range(FILE_BYTES // 20)).encode()
    files: dict[str | Path, entries.BaseEntry] = {
        f"src/{n:03}.txt": entries.File(content=text) for n in range(task.files)
    }
    client = sandbox_client(task)
    session = await client.create(
        manifest=Manifest(entries=files),
        snapshot=NoopSnapshotSpec(),
        options=docker.DockerSandboxClientOptions(image=task.image)
        if task.image
        else unix_local.UnixLocalSandboxClientOptions(),
    )
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


@activity.defn
async def noop() -> None:
    """Do nothing."""


@workflow.defn
class Commands:
    """Times commands that do nothing, with `noops` an activity that does nothing after each."""

    @workflow.run
    async def run(self, task: Task) -> Report:
        report = Report()
        async with new_session(task) as session:
            for _ in range(task.commands):
                begin = workflow.time()
                await session.exec("true")
                report.steps.append(workflow.time() - begin)
                if task.noops:
                    begin = workflow.time()
                    await workflow.execute_activity(noop, schedule_to_close_timeout=MINUTE)
                    report.noops.append(workflow.time() - begin)
        return report


@workflow.defn
class Noops:
    """Runs as many activities as `Commands`, all of which do nothing."""

    @workflow.run
    async def run(self, task: Task) -> Report:
        for _ in range(LIFECYCLE + task.commands):
            await workflow.execute_activity(noop, schedule_to_close_timeout=MINUTE)
        return Report()


@workflow.defn
class Hold:
    """Holds as many sessions open as `commands` says, until it is told to let go of them."""

    def __init__(self) -> None:
        self._report = Report()
        self._opened = False
        self._done = False

    @workflow.update
    async def opened(self) -> Report:
        """Wait until all are open; return how long each took (`noops`), and a command in it."""
        await workflow.wait_condition(lambda: self._opened)
        return self._report

    @workflow.signal
    def let_go(self) -> None:
        """Delete the sessions."""
        self._done = True

    @workflow.run
    async def run(self, task: Task) -> None:
        async with AsyncExitStack() as stack:
            for _ in range(task.commands):
                begin = workflow.time()
                session = await stack.enter_async_context(new_session(task))
                started = workflow.time()
                await session.exec("true")
                self._report.noops.append(started - begin)
                self._report.steps.append(workflow.time() - started)
            self._opened = True
            await workflow.wait_condition(lambda: self._done)


@workflow.defn
class Many:
    """Runs very many commands in one session, twenty at a time, and times each."""

    @workflow.run
    async def run(self, task: Task) -> Report:
        report = Report()

        async def one(session: SandboxSession) -> None:
            begin = workflow.time()
            await session.exec("true")
            report.steps.append(workflow.time() - begin)

        async with new_session(task) as session:
            for _ in range(task.commands // 20):
                await asyncio.gather(*(one(session) for _ in range(20)))
        return report


@workflow.defn
class Agent:
    """Runs an agent by the script that `what` names; the answer is what its tools answered."""

    @workflow.run
    async def run(self, task: Task) -> Report:
        skills = entries.LocalDir(src=Path(task.skills))
        source = capabilities.LocalDirLazySkillSource(source=skills)
        abilities: dict[str, list[capabilities.Capability]] = {
            "patch": [capabilities.Filesystem()],
            "skills": [capabilities.Shell(), capabilities.Skills(from_=skills)],
            "lazy skills": [capabilities.Shell(), capabilities.Skills(lazy_from=source)],
        }
        files: dict[str | Path, entries.BaseEntry] = {"a.txt": entries.File(content=b"hello\n")}
        agent = SandboxAgent(
            name="Scripted",
            model=task.what,
            capabilities=abilities[task.what],
            default_manifest=Manifest(entries=files),
        )
        sandbox = SandboxRunConfig(
            client=sandbox_client(task),
            options=unix_local.UnixLocalSandboxClientOptions(),
            snapshot=NoopSnapshotSpec(),
        )
        result = await Runner.run(agent, "Begin.", run_config=RunConfig(sandbox=sandbox))
        outputs = [item for item in result.new_items if isinstance(item, ToolCallOutputItem)]
        return Report(answer=" ".join(str(item.output) for item in outputs))


@workflow.defn
class Files:
    """Reads or writes a file of `size` bytes, or extracts five; answers how many bytes arrived."""

    @workflow.run
    async def run(self, task: Task) -> Report:
        report, path = Report(), Path("data.bin")
        written = b"" if task.what == "read" else workflow.random().randbytes(task.size)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number in range(5):
                archive.writestr(zipfile.ZipInfo(f"{number}.txt"), "x" * FILE_BYTES)
        async with new_session(task) as session:
            if task.what == "read":
                await session.exec(f"head -c {task.size} /dev/urandom > {path}")
            begin = workflow.time()
            try:
                if task.what == "read":
                    report.answer = str(len((await session.read(path)).read()))
                elif task.what == "write":
                    await session.write(path, io.BytesIO(written))
                else:
                    await session.extract("unpacked/five.zip", io.BytesIO(buffer.getvalue()))
            except (SandboxError, FailureError) as error:
                report.error = f"{type(error).__name__}: {error}"
            report.steps.append(workflow.time() - begin)
            if task.what != "read" and not report.error:
                counted = await session.exec("cat data.bin unpacked/*.txt 2>/dev/null | wc -c")
                report.answer = counted.stdout.decode()
        return report


@workflow.defn
class Workspace:
    """Saves a workspace of `size` bytes on one worker, and restores it on another.

    Its sandbox is deleted in between. Answers how many bytes arrived, and if they are the same.
    """

    @workflow.run
    async def run(self, task: Task) -> Report:
        source, target = (
            sandbox_client(
                task, ActivityConfig(task_queue=queue, start_to_close_timeout=5 * MINUTE)
            )
            for queue in queues_beside(workflow.info().task_queue)
        )
        session = await source.create(
            manifest=Manifest(),
            snapshot=snapshot_spec(task),
            options=unix_local.UnixLocalSandboxClientOptions(),
        )
        await session.start()
        await session.exec(
            f"for n in $(seq {MOVED_FILES}); do "
            f"head -c {task.size // MOVED_FILES} /dev/urandom > $n.bin; done"
        )
        before = await _content(session)
        report = Report()
        saving = workflow.time()
        if task.what == SNAPSHOT:
            await session.stop()
        else:
            archive = await session.persist_workspace()
        report.steps.append(workflow.time() - saving)
        await source.delete(session)
        restoring = workflow.time()
        moved = await target.resume(session.state)
        await moved.start()
        if task.what != SNAPSHOT:
            await moved.hydrate_workspace(archive)
        report.steps.append(workflow.time() - restoring)
        after = await _content(moved)
        report.answer = f"{after.split()[0]} bytes, {'the same' if after == before else 'others'}"
        await target.delete(moved)
        return report


async def _content(session: SandboxSession) -> str:
    """Return how many bytes are in the workspace, and the checksum of its files."""
    summed = await session.exec("cat *.bin | wc -c; sha256sum *.bin | sha256sum")
    return summed.stdout.decode()
