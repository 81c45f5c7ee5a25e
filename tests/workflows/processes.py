"""Workflows that run one command, on any worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from agents.sandbox import Manifest
from agents.sandbox.errors import ExecTimeoutError
from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.workflow import temporal_sandbox_client


@dataclass
class Job:
    """A command, how it is run, and how soon a dead worker is noticed."""

    command: str
    root: str
    """An existing directory, which stays when the session is deleted."""

    timeout: float | None = None
    process: bool = False
    heartbeat_s: float = 2.0
    start_to_close_s: float = 60.0
    provider: str = "local"
    environment: dict[str, str] = field(default_factory=dict)


@workflow.defn
class RunJob:
    """Runs the command and reports its output, its exit code, or that it timed out."""

    @workflow.run
    async def run(self, job: Job) -> list[Any]:
        client = temporal_sandbox_client(
            job.provider,
            ActivityConfig(
                start_to_close_timeout=timedelta(seconds=job.start_to_close_s),
                heartbeat_timeout=timedelta(seconds=job.heartbeat_s),
            ),
        )
        session = await client.create(manifest=Manifest(root=job.root))
        await session.start()
        try:
            if job.process:
                return await self._poll(session, job)
            ran = await session.exec(job.command, timeout=job.timeout)
        except ExecTimeoutError as error:
            return ["timed out", error.timeout_s]
        else:
            return [ran.stdout.decode(), ran.stderr.decode(), ran.exit_code]
        finally:
            # Shielded, so that a cancelled workflow cleans up.
            await asyncio.shield(client.delete(session))

    async def _poll(self, session: SandboxSession, job: Job) -> list[Any]:
        update = await session.pty_exec_start(job.command, yield_time_s=0.5)
        output = update.output
        while update.process_id is not None:
            update = await session.pty_write_stdin(session_id=update.process_id, chars="")
            output += update.output
        return [output.decode(), "", update.exit_code]


@workflow.defn
class RunAndKeep(RunJob):
    """Runs the command, and does not delete its session when it is cancelled."""

    @workflow.run
    async def run(self, job: Job) -> list[Any]:
        client = temporal_sandbox_client(
            job.provider, ActivityConfig(heartbeat_timeout=timedelta(seconds=job.heartbeat_s))
        )
        session = await client.create(manifest=Manifest(root=job.root))
        await session.start()
        ran = await session.exec(job.command, timeout=job.timeout)
        return [ran.stdout.decode(), ran.stderr.decode(), ran.exit_code]
