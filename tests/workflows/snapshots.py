"""Workflows that save a workspace, and open what they have saved in other ways."""

from __future__ import annotations

from pathlib import Path

from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec, RemoteSnapshotSpec, SnapshotSpec
from temporalio import workflow

from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.workflow import temporal_sandbox_client


def _spec(folder: str | None) -> SnapshotSpec:
    if folder is not None:
        return LocalSnapshotSpec(base_path=Path(folder))
    return RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)


async def _output(session: SandboxSession, command: str) -> str:
    ran = await session.exec(command)
    return (ran.stdout + ran.stderr).decode().strip()


@workflow.defn
class Forks:
    """Saves twice, makes a fork of it that saves too, and opens both of the source's states."""

    @workflow.run
    async def run(self, provider: str, folder: str | None = None) -> dict[str, str]:
        client = temporal_sandbox_client(provider)
        source = await client.create(snapshot=_spec(folder))
        await source.start()
        await source.exec("echo first > file")
        await source.stop()
        first = source.state
        await source.exec("echo second > file")
        await source.stop()
        second = source.state
        fork = await client.create(snapshot=second.snapshot)
        await fork.start()
        seen = {"fork": await _output(fork, "cat file")}
        await fork.exec("echo the fork > file")
        await fork.stop()
        await client.delete(fork)
        await client.delete(source)
        for name, state in (("second", second), ("first", first), ("the fork", fork.state)):
            session = await client.resume(state)
            await session.start()
            seen[name] = await _output(session, "cat file")
            await client.delete(session)
        return seen
