"""The workflows that `peer.py` runs over either side."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.exceptions import FailureError

# This module is loaded once more for every workflow; what it imports is not.
with workflow.unsafe.imports_passed_through():
    from agents import Runner
    from agents.items import ToolCallOutputItem
    from agents.run import RunConfig
    from agents.run_config import SandboxRunConfig
    from agents.sandbox import Manifest, SandboxAgent, capabilities, entries
    from agents.sandbox.errors import SandboxError
    from agents.sandbox.sandboxes import unix_local
    from agents.sandbox.session.sandbox_client import BaseSandboxClient
    from agents.sandbox.session.sandbox_session import SandboxSession
    from agents.sandbox.snapshot import NoopSnapshotSpec
    from temporalio.openai_agents.workflow import temporal_sandbox_client as peer_sandbox_client

    from sandbox_core.workflow import temporal_sandbox_client

OURS, PEER = SIDES = ("sandbox-core", "peer")
RATIO = "peer / sandbox-core"
COMMANDS, FILE_BYTES, MEGABYTE = 50, 2_000, 1_000_000
MANIFESTS = (0, 50, 200)
SIZES = (1.0, 1.5, 2.0, 10.0)
SKILLS = {"greet": "Say hello.", "count": "Count to three."}
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a workflow is to do, and with whose client."""

    side: str = ""
    provider: str = "local"
    what: str = ""
    skills: str = ""
    files: int = 0
    size: int = 0
    commands: int = 0
    noops: bool = False


@dataclass(kw_only=True)
class Report:
    """What the sandbox or the tools answered, or the error, and the seconds of each step."""

    answer: str = ""
    error: str = ""
    steps: list[float] = field(default_factory=list)
    noops: list[float] = field(default_factory=list)


def sandbox_client(task: Task) -> BaseSandboxClient[Any]:
    """Return the client of one side: all that differs in a workflow."""
    make: Callable[[str], BaseSandboxClient[Any]] = (
        temporal_sandbox_client if task.side == OURS else peer_sandbox_client
    )
    return make(task.provider)


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
        options=unix_local.UnixLocalSandboxClientOptions(),
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
