"""Workflows that save a workspace, and open it again in various ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec, RemoteSnapshotSpec, SnapshotSpec
from temporalio import workflow

from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.testing.contract.whole_workflows import LOOK, MAKE, forked
from sandbox_core.workflow import temporal_sandbox_client


def _spec(folder: str | None) -> SnapshotSpec:
    if folder is not None:
        return LocalSnapshotSpec(base_path=Path(folder))
    return RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)


async def _output(session: SandboxSession, command: str) -> str:
    ran = await session.exec(command)
    return (ran.stdout + ran.stderr).decode().strip()


@workflow.defn
class ForkInFolder:
    """Forks a session whose workspace is saved to a folder of the worker's."""

    @workflow.run
    async def run(self, provider: str, folder: str) -> dict[str, str]:
        return await forked(temporal_sandbox_client(provider), _spec(folder))


_MAKE_ALL = f"mkdir cache\n{MAKE}python3 -m venv --without-pip venv\n"
_LOOK_AT_ALL = f"""{LOOK}
venv/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'
ls -A
"""


@workflow.defn
class KeepsWhole:
    """Saves a workspace with everything in it, and looks at it before and after it was lost."""

    @workflow.run
    async def run(self, provider: str) -> list[str]:
        client = temporal_sandbox_client(provider)
        session = await client.create(snapshot=_spec(None))
        await session.start()
        seen = [await _output(session, _MAKE_ALL), await _output(session, _LOOK_AT_ALL)]
        await session.stop()
        archive = await session.persist_workspace()
        await client.delete(session)
        restored = await client.resume(session.state)
        await restored.start()
        seen.append(await _output(restored, _LOOK_AT_ALL))
        await client.delete(restored)
        other = await client.create()
        await other.start()
        await other.hydrate_workspace(archive)
        seen.append(await _output(other, _LOOK_AT_ALL))
        await client.delete(other)
        return seen


@workflow.defn
class CannotKeep:
    """Saves a workspace, and then one that could not be restored, and restores the first."""

    @workflow.run
    async def run(self, provider: str) -> list[str]:
        client = temporal_sandbox_client(provider)
        session = await client.create(snapshot=_spec(None))
        await session.start()
        await session.exec("mkdir a; echo first > a/file")
        await session.stop()
        saved = session.state.snapshot
        await session.exec("ln -s ../../../elsewhere a/link; echo second > a/file")
        try:
            await session.stop()
            error = "none"
        except SandboxError as refused:
            error = str(refused)
        assert saved == session.state.snapshot
        await client.delete(session)
        restored = await client.resume(session.state)
        await restored.start()
        seen = await _output(restored, "cat a/file")
        await client.delete(restored)
        return [error, seen]


@workflow.defn
class Saves:
    """Makes a workspace, saves it if it is told to, deletes it, and returns its state."""

    @workflow.run
    async def run(self, provider: str, save: bool, folder: str | None = None) -> dict[str, Any]:
        client = temporal_sandbox_client(provider)
        session = await client.create(snapshot=_spec(folder))
        await session.start()
        await session.exec("echo saved > file")
        if save:
            await session.stop()
        await client.delete(session)
        return client.serialize_session_state(session.state)


@workflow.defn
class Opens:
    """Opens a workspace from a state, or makes one from a snapshot, and lists its files."""

    @workflow.run
    async def run(
        self, provider: str, state: dict[str, Any], snapshot_id: str | None = None
    ) -> str:
        client = temporal_sandbox_client(provider)
        loaded = client.deserialize_session_state(state)
        if snapshot_id is None:
            session = await client.resume(loaded)
        else:
            snapshot = loaded.snapshot.model_copy(update={"id": snapshot_id})
            session = await client.create(snapshot=snapshot)
        await session.start()
        seen = await _output(session, "ls -A")
        await client.delete(session)
        return seen
