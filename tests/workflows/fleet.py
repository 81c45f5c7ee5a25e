"""A workflow that keeps a session open on a fleet of workers and uses it as directed."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import RemoteSnapshotSpec
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityConfig

from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.workflow import temporal_sandbox_client
from sandbox_core.workflow.session import TemporalSandboxSession

MANIFEST = Manifest(entries={"hello.txt": File(content=b"hello\n")})


@dataclass
class Kept:
    """How a session is kept, and how soon it is noticed that its worker is gone."""

    provider: str = "local"
    heartbeat_s: float = 2.0
    schedule_to_start_s: float = 60.0
    retry_s: float = 0.1
    attempts: int = 4
    schedule_to_close_s: float | None = None


@workflow.defn
class KeepSession:
    """Keeps a session until it is told to end it; each update does one thing with it.

    An update answers with what came of it, or fails with the error; the session goes on.
    """

    def __init__(self) -> None:
        self._session: SandboxSession | None = None
        self._reads: list[asyncio.Task[str]] = []
        self._finished = False

    @workflow.run
    async def run(self, kept: Kept) -> None:
        config = ActivityConfig(
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=kept.heartbeat_s),
            schedule_to_start_timeout=timedelta(seconds=kept.schedule_to_start_s),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=kept.retry_s),
                maximum_attempts=kept.attempts,
            ),
        )
        if kept.schedule_to_close_s is not None:
            config["schedule_to_close_timeout"] = timedelta(seconds=kept.schedule_to_close_s)
        self._client = client = temporal_sandbox_client(kept.provider, config)
        session = await client.create(
            manifest=MANIFEST,
            snapshot=RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY),
        )
        await session.start()
        self._session = session
        await workflow.wait_condition(lambda: self._finished and workflow.all_handlers_finished())
        await client.delete(self._session)

    @workflow.update
    async def do(self, command: str) -> str:
        """Run a command and return its output."""
        ran = await (await self._opened()).exec(command)
        return (ran.stdout + ran.stderr).decode()

    @workflow.update
    async def read(self, name: str = "hello.txt") -> str:
        """Return a file of the workspace."""
        return await _read(await self._opened(), name)

    @workflow.update
    async def write(self, name: str, text: str) -> None:
        """Write a file of the workspace."""
        await (await self._opened()).write(Path(name), io.BytesIO(text.encode()))

    @workflow.update
    async def running(self) -> bool:
        """Return whether the sandbox is running."""
        return await (await self._opened()).running()

    @workflow.update
    async def start(self) -> None:
        """Start the session once more, as the SDK does whenever it does not look like running."""
        await (await self._opened()).start()

    @workflow.update
    async def save(self) -> None:
        """Save the workspace to its snapshot."""
        await (await self._opened()).stop()

    @workflow.update
    async def shut_down(self) -> None:
        """Release the sandbox, which is still there."""
        await (await self._opened()).shutdown()

    @workflow.update
    async def resume(self) -> None:
        """Go on with a session that is made of the state of the one before, as a later run does."""
        session = await self._opened()
        self._session = await self._client.resume(session.state)
        await self._session.start()

    @workflow.update
    async def read_at_once(self, count: int) -> list[str]:
        """Read a file many times at once; return what came of each, or that it was cancelled."""
        session = await self._opened()
        self._reads = [asyncio.create_task(_read(session, "hello.txt")) for _ in range(count)]
        done = await asyncio.gather(*self._reads, return_exceptions=True)
        return [
            "cancelled" if isinstance(answer, asyncio.CancelledError) else str(answer)
            for answer in done
        ]

    @workflow.update
    async def cancel_reads(self, numbers: list[int]) -> None:
        """Cancel some of those."""
        for number in numbers:
            self._reads[number].cancel()

    @workflow.update
    async def restorations(self) -> list[list[str]]:
        """Return which sandbox was lost, and which has its workspace now, for each that was."""
        inner = (await self._opened())._inner
        assert isinstance(inner, TemporalSandboxSession)
        return [[r.lost_sandbox_id or "", r.sandbox_id or ""] for r in inner.restorations]

    @workflow.query
    def root(self) -> str:
        """Return the root of the session's workspace."""
        return "" if self._session is None else self._session.state.manifest.root

    @workflow.signal
    def finish(self) -> None:
        """Delete the session."""
        self._finished = True

    async def _opened(self) -> SandboxSession:
        await workflow.wait_condition(lambda: self._session is not None)
        assert self._session is not None
        return self._session


async def _read(session: SandboxSession, name: str) -> str:
    content: bytes = (await session.read(Path(name))).read()
    return content.decode()


@workflow.defn
class AppendLines:
    """Appends numbered lines to a file, one command each, until it is told that it is enough.

    It returns how many it has appended, and the file.
    """

    def __init__(self) -> None:
        self._enough = False
        self._count = 0

    @workflow.run
    async def run(self, pause_s: float) -> tuple[int, str]:
        client = temporal_sandbox_client(
            "local", ActivityConfig(heartbeat_timeout=timedelta(seconds=2))
        )
        session = await client.create(manifest=MANIFEST)
        try:
            await session.start()
            while not self._enough:
                await session.exec(f"echo {self._count} >> lines.txt")
                self._count += 1
                await workflow.sleep(pause_s)
            return self._count, await _read(session, "lines.txt")
        finally:
            await client.delete(session)

    @workflow.update
    async def begun(self) -> None:
        """Return once there is a line."""
        await workflow.wait_condition(lambda: self._count > 0)

    @workflow.signal
    def enough(self) -> None:
        """Append no more."""
        self._enough = True
