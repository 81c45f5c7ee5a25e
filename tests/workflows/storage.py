"""Workflows that move more data through a session than Temporal accepts."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from agents.sandbox.snapshot import RemoteSnapshotSpec
from temporalio import workflow
from workflows.sessions import Commands, new_session

from sandbox_core.errors import SandboxCoreError
from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.workflow import temporal_sandbox_client


def content(size: int) -> bytes:
    """Return `size` bytes that do not compress and are the same whenever the workflow replays."""
    return hashlib.shake_128(str(size).encode()).digest(size)


def fingerprint(data: bytes) -> str:
    """Return what stands for `data` where it is itself too large."""
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}"


@workflow.defn
class RoundTrip:
    """Writes a file of each size, reads it again and returns what was read."""

    @workflow.run
    async def run(self, provider: str, sizes: list[int]) -> list[str]:
        seen = []
        async with new_session(provider) as session:
            for size in sizes:
                await session.write(Path("large.bin"), io.BytesIO(content(size)))
                read = (await session.read(Path("large.bin"))).read()
                seen.append(fingerprint(read))
        return seen


@workflow.defn
class Refused:
    """Writes and reads a file that is too large or cannot be stored, and goes on."""

    @workflow.run
    async def run(self, provider: str, size: int) -> dict[str, str]:
        seen: dict[str, str] = {}
        async with new_session(provider) as session:
            try:
                await session.write(Path("large.bin"), io.BytesIO(content(size)))
            except SandboxCoreError as error:
                seen["write"] = f"{type(error).__name__} {error}"
            await session.exec(f"head -c {size} /dev/urandom > made.bin")
            try:
                await session.read(Path("made.bin"))
            except SandboxCoreError as error:
                seen["read"] = f"{type(error).__name__} {error}"
        return seen


@workflow.defn
class Output:
    """Runs a command and returns its output."""

    @workflow.run
    async def run(self, provider: str, command: str) -> list[str]:
        async with new_session(provider) as session:
            ran = await session.exec(command)
        return [ran.stdout.decode(), ran.stderr.decode()]


@workflow.defn
class RemovesWorkspace:
    """Removes the workspace, which would be saved when the session is closed."""

    @workflow.run
    async def run(self) -> str:
        client = temporal_sandbox_client("local")
        session = await client.create(
            snapshot=RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)
        )
        try:
            async with session:
                return (await session.exec('rm -r -- "$PWD"; echo done')).stdout.decode()
        finally:
            await client.delete(session)


@workflow.defn
class Snapshotted(Commands):
    """Keeps a session open, whose workspace "stop" saves to the store."""

    @workflow.run
    async def run(self, provider: str) -> None:
        client = temporal_sandbox_client(provider)
        session = await client.create(
            snapshot=RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)
        )
        await session.start()

        async def stop() -> str:
            await session.stop()
            return str(session.state.snapshot.id)

        await self._run_commands(session, {"stop": stop})
        await client.delete(session)


@workflow.defn
class Returns:
    """Has text of any size for its result, for an update and for a query."""

    def __init__(self) -> None:
        self._asked = False

    @workflow.run
    async def run(self, size: int) -> str:
        if size < 2_000_000:
            await workflow.wait_condition(lambda: self._asked)
        return "x" * size

    @workflow.update
    async def update(self, size: int) -> str:
        """Return so much."""
        self._asked = True
        return "y" * size

    @workflow.query
    def query(self, size: int) -> str:
        """Return so much."""
        return "z" * size
