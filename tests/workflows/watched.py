"""Workflows whose commands are published while they run."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from agents import Runner
from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.errors import SandboxError
from agents.sandbox.manifest import Environment
from agents.sandbox.session import SandboxSession
from temporalio import workflow
from temporalio.contrib.workflow_streams import WorkflowStream
from temporalio.workflow import ActivityConfig

from sandbox_core.workflow import LiveOutput, WorkerEnv, temporal_sandbox_client


@dataclass
class Watched:
    """Commands, and how they are run and published."""

    commands: list[str]
    root: str
    """An existing directory, which stays when the session is deleted."""

    process: bool = False
    """Whether each is started and then polled until it ends."""

    live: bool = True
    max_bytes: int = 256 * 1024
    timeout: float | None = None
    at_once: bool = False
    """Whether the commands run at the same time."""

    secrets: list[str] = field(default_factory=list)


async def run_watched(job: Watched) -> None:
    """Run the commands of `job` in a session of their own."""
    client = temporal_sandbox_client(
        "local",
        ActivityConfig(
            start_to_close_timeout=timedelta(seconds=60), heartbeat_timeout=timedelta(seconds=2)
        ),
        live_output=LiveOutput(max_bytes=job.max_bytes) if job.live else None,
    )
    environment = Environment(value={name: WorkerEnv(name=name) for name in job.secrets})
    session = await client.create(manifest=Manifest(root=job.root, environment=environment))
    await session.start()
    try:
        if job.at_once:
            await asyncio.gather(*(_run(session, command, job) for command in job.commands))
        else:
            for command in job.commands:
                await _run(session, command, job)
    finally:
        await asyncio.shield(client.delete(session))


async def _run(session: SandboxSession, command: str, job: Watched) -> None:
    with suppress(SandboxError):
        if not job.process:
            await session.exec(command, timeout=job.timeout)
            return
        update = await session.pty_exec_start(command, yield_time_s=1)
        while update.process_id is not None:
            update = await session.pty_write_stdin(
                session_id=update.process_id, chars="", yield_time_s=5
            )


@workflow.defn
class RunWatched:
    """Has no stream of its own."""

    @workflow.run
    async def run(self, job: Watched) -> None:
        await run_watched(job)


@workflow.defn
class RunWatchedWithStream:
    """Publishes to a stream of its own as well."""

    @workflow.init
    def __init__(self, job: Watched) -> None:
        self._stream = WorkflowStream()

    @workflow.run
    async def run(self, job: Watched) -> None:
        self._stream.topic("own").publish("hello")
        await run_watched(job)


@workflow.defn
class AskWatched:
    """Has an agent that runs commands."""

    @workflow.run
    async def run(self, model: str) -> str:
        agent = SandboxAgent(name="Assistant", instructions="Run them.", model=model)
        client = temporal_sandbox_client("local", live_output=LiveOutput())
        sandbox = SandboxRunConfig(client=client)
        result = await Runner.run(agent, "Go.", run_config=RunConfig(sandbox=sandbox))
        return str(result.final_output)
