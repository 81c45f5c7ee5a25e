"""Workflows whose operations are measured."""

from __future__ import annotations

import io
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from agents.sandbox import Manifest
from agents.sandbox.errors import SandboxError
from agents.sandbox.manifest import Environment
from agents.sandbox.snapshot import RemoteSnapshotSpec
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityConfig

from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.workflow import Usage, WorkerEnv, temporal_sandbox_client

SPOKEN = "printf hello; printf oops >&2; exit 3"
LARGE = b"0123456789abcdef" * 20_000
"""A file that goes to a configured storage, and not into the history."""


@workflow.defn
class Observed:
    """Makes an operation end in every way."""

    @workflow.run
    async def run(self, provider: str) -> None:
        client = temporal_sandbox_client(provider)
        saved = RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)
        first = await client.create(snapshot=saved)
        # A worker for one session evicts that one for this one, and later the other way round.
        second = await client.create()
        await client.delete(second)
        async with first as session:
            await session.exec(SPOKEN)
            with suppress(SandboxError):
                await session.exec("sleep 60", timeout=0.1)
            await session.write(Path("large"), io.BytesIO(LARGE))
            await session.read(Path("large"))
            with suppress(SandboxError):
                await session.read(Path("missing"))
        again = await client.create(snapshot=first.state.snapshot)
        await again.start()
        await client.delete(first)
        await client.delete(again)


@workflow.defn
class LeavesSandbox:
    """Ends without deleting its sandbox."""

    @workflow.run
    async def run(self, provider: str) -> None:
        await temporal_sandbox_client(provider).create()


@workflow.defn
class RunsCommand:
    """Runs one command, and returns the usage."""

    @workflow.run
    async def run(self, provider: str, command: str) -> None:
        config = ActivityConfig(
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=1)),
        )
        client = temporal_sandbox_client(provider, config)
        session = await client.create()
        try:
            await session.exec(command)
        finally:
            await client.delete(session)


@workflow.defn
class Uses:
    """Returns what a session has used after each of its operations, and what commands were told."""

    @workflow.run
    async def run(self) -> tuple[list[Usage], list[str]]:
        client = temporal_sandbox_client("local")
        session = await client.create()
        seen, told = [session.usage], []
        other = await client.resume(session.state)
        async with session:
            for _ in range(2):
                said = await session.exec(f"printf {session.usage.seconds!r}")
                told.append(said.stdout.decode())
                seen.append(session.usage)
            await session.write(Path("file"), io.BytesIO(b"12345"))
            await session.read(Path("file"))
            seen.append(session.usage)
            with suppress(SandboxError):
                await session.exec("sleep 60", timeout=0.1)
            with suppress(SandboxError):
                await session.read(Path("missing"))
            seen.append(session.usage)
        await client.delete(other)
        seen.append(session.usage)
        await workflow.sleep(0.2)
        seen.append(session.usage)
        return seen, told


@workflow.defn
class Traced:
    """Runs a command, and fails to read two files, of which the second leads to a secret."""

    @workflow.run
    async def run(self) -> None:
        client = temporal_sandbox_client("local")
        environment = Environment(value={"TOKEN": WorkerEnv(name="ACME_TOKEN")})
        session = await client.create(manifest=Manifest(environment=environment))
        try:
            await session.start()
            await session.exec(SPOKEN)
            with suppress(SandboxError):
                await session.read(Path("missing"))
            await session.pty_exec_start('env; ln -s "/outside/$TOKEN" link')
            with suppress(SandboxError):
                await session.read(Path("link"))
        finally:
            await client.delete(session)
