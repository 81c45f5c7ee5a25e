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

from sandbox_core.errors import InvalidRequest
from sandbox_core.workflow import LiveOutput, WorkerEnv, temporal_sandbox_client


@dataclass
class LiveJob:
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


async def run_live(job: LiveJob) -> None:
    """Run the commands of `job` in a session of their own."""
    client = temporal_sandbox_client(
        "local",
        ActivityConfig(
            start_to_close_timeout=timedelta(minutes=10), heartbeat_timeout=timedelta(seconds=2)
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


async def _run(session: SandboxSession, command: str, job: LiveJob) -> None:
    with suppress(SandboxError):
        if not job.process:
            await session.exec(command, timeout=job.timeout)
            return
        update = await session.pty_exec_start(command, yield_time_s=1)
        while update.process_id is not None:
            update = await session.pty_write_stdin(
                session_id=update.process_id, chars="", yield_time_s=5
            )


@workflow.defn(name="RunWatched")  # As in recorded histories.
class RunLive:
    """Has no stream of its own."""

    @workflow.run
    async def run(self, job: LiveJob) -> None:
        await run_live(job)


@workflow.defn
class RunLiveWithStream:
    """Publishes to a stream of its own as well."""

    @workflow.init
    def __init__(self, job: LiveJob) -> None:
        self._stream = WorkflowStream()

    @workflow.run
    async def run(self, job: LiveJob) -> None:
        self._stream.topic("own").publish("hello")
        await run_live(job)


@workflow.defn
class AskLive:
    """Has an agent that runs commands."""

    @workflow.run
    async def run(self, model: str) -> str:
        agent = SandboxAgent(name="Assistant", instructions="Run them.", model=model)
        client = temporal_sandbox_client("local", live_output=LiveOutput())
        sandbox = SandboxRunConfig(client=client)
        result = await Runner.run(agent, "Go.", run_config=RunConfig(sandbox=sandbox))
        return str(result.final_output)


@workflow.defn
class OneLiveSession:
    """Has several sessions of one client, one of which publishes."""

    @workflow.run
    async def run(self, root: str) -> str:
        client = temporal_sandbox_client("local")
        session, other = [
            await client.create(manifest=Manifest(root=f"{root}/{n}")) for n in range(2)
        ]
        try:
            await asyncio.gather(session.start(), other.start())
            await session.exec("echo before")
            session.live_output = LiveOutput()
            await asyncio.gather(
                session.exec("echo begun; sleep 0.5"), other.exec("echo other; sleep 0.5")
            )
            update = await session.pty_exec_start("echo one; sleep 1; echo two", yield_time_s=0.25)
            session.live_output = None
            await session.exec("echo after")
            while update.process_id is not None:
                update = await session.pty_write_stdin(
                    session_id=update.process_id, chars="", yield_time_s=5
                )
            again = await client.resume(session.state)
            again.live_output = LiveOutput()
            await again.exec("echo resumed")
            try:
                again.live_output = True  # type: ignore[assignment]
            except InvalidRequest as error:
                return str(error)
            return "nothing was refused"
        finally:
            for each in (session, other):
                await asyncio.shield(client.delete(each))


@workflow.defn
class PollsLater:
    """Starts a process, and lets it run until it is told to poll or to terminate it."""

    def __init__(self) -> None:
        self._next = ""

    @workflow.run
    async def run(self, command: str, root: str, secrets: list[str]) -> None:
        client = temporal_sandbox_client("local", live_output=LiveOutput())
        environment = Environment(value={name: WorkerEnv(name=name) for name in secrets})
        session = await client.create(manifest=Manifest(root=root, environment=environment))
        await session.start()
        update = await session.pty_exec_start(command, yield_time_s=0.25)
        await workflow.wait_condition(lambda: self._next != "")
        if self._next == "terminate":
            await session.pty_terminate_all()
        while self._next == "poll" and update.process_id is not None:
            update = await session.pty_write_stdin(
                session_id=update.process_id, chars="", yield_time_s=5
            )
        await client.delete(session)

    @workflow.signal
    def go(self, then: str) -> None:
        self._next = then
