"""The workflows of the durable checks, which use a sandbox as directed by updates."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from agents.sandbox import Manifest
from agents.sandbox.entries import BaseEntry, File
from agents.sandbox.errors import ExecTimeoutError
from agents.sandbox.manifest import Environment
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import RemoteSnapshotSpec
from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityConfig

from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.wire.agents_models import dump_state, load_options, load_state
from sandbox_core.workflow import WorkerEnv, WorkflowSandboxSession, temporal_sandbox_client
from sandbox_core.workflow.session_wrapper import workflow_session

GREETING = b"hello\n"


@dataclass
class Order:
    """How to create and keep a sandbox."""

    provider: str
    options: dict[str, Any] | None = None
    heartbeat_s: float = 1.0
    start_to_close_s: float = 60.0
    attempts: int = 6
    spoilt: bool = False
    """Whether its first start fails."""

    secrets: list[str] = field(default_factory=list)
    """Variables of the worker that its environment contains."""


@workflow.defn
class HoldSandbox:
    """Keeps a session open until it is told to end; each update does one thing with the session.

    An update returns the result or fails with the error; the session stays open.
    """

    def __init__(self) -> None:
        self._session: WorkflowSandboxSession | None = None
        self._finished = False
        self._kept = False

    @workflow.run
    async def run(self, order: Order) -> None:
        client = temporal_sandbox_client(
            order.provider,
            ActivityConfig(
                start_to_close_timeout=timedelta(seconds=order.start_to_close_s),
                heartbeat_timeout=timedelta(seconds=order.heartbeat_s),
                retry_policy=RetryPolicy(
                    initial_interval=timedelta(seconds=0.2), maximum_attempts=order.attempts
                ),
            ),
        )
        entries: dict[str | Path, BaseEntry] = {"hello.txt": File(content=GREETING)}
        if order.spoilt:
            # Below a file, which is not a folder.
            entries["hello.txt/below"] = File(content=b"")
        session = await client.create(
            manifest=Manifest(
                entries=entries,
                environment=Environment(
                    value={name: WorkerEnv(name=name) for name in order.secrets}
                ),
            ),
            snapshot=RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY),
            options=None if order.options is None else load_options(order.options),
        )
        await session.start()
        self._session = session
        await workflow.wait_condition(
            lambda: self._kept or (self._finished and workflow.all_handlers_finished())
        )
        if not self._kept:
            await client.delete(session)

    @workflow.update
    async def do(self, script: str, timeout: float | None = None) -> list[Any]:
        """Run a command; return stdout, stderr and exit code, or report that it timed out."""
        try:
            ran = await (await self._opened()).exec(script, timeout=timeout)
        except ExecTimeoutError:
            return ["timed out"]
        return [ran.stdout.decode(), ran.stderr.decode(), ran.exit_code]

    @workflow.update
    async def poll(self, script: str) -> list[Any]:
        """Run a command as a polled process; return its output and exit code."""
        session = await self._opened()
        update = await session.pty_exec_start(script, yield_time_s=0.5)
        output = update.output
        while update.process_id is not None:
            update = await session.pty_write_stdin(session_id=update.process_id, chars="")
            output += update.output
        return [output.decode(), update.exit_code]

    @workflow.update
    async def read(self, name: str) -> str:
        """Return a file of the workspace."""
        content: bytes = (await (await self._opened()).read(Path(name))).read()
        return content.decode()

    @workflow.update
    async def start(self) -> None:
        """Start the session again, as the SDK does."""
        await (await self._opened()).start()

    @workflow.update
    async def save(self) -> None:
        """Save the workspace to its snapshot."""
        await (await self._opened()).stop()

    @workflow.update
    async def shut_down(self) -> None:
        """Release the sandbox's resources; the workflow continues to use the session."""
        await (await self._opened()).shutdown()

    @workflow.update
    async def close(self) -> None:
        """Save the workspace and release the sandbox, as at the end of ``async with``."""
        await (await self._opened()).aclose()

    @workflow.update
    async def delete(self) -> None:
        """Delete the sandbox; the workflow continues to use the session."""
        session = workflow_session(await self._opened())
        assert session is not None
        await session.delete()

    @workflow.update
    async def restorations(self) -> list[list[str | None]]:
        """Return, for each lost sandbox, its id and that of its replacement."""
        session = await self._opened()
        return [[r.lost_sandbox_id, r.sandbox_id] for r in session.restorations]

    @workflow.update
    async def state(self) -> dict[str, Any]:
        """Return the session's state."""
        return dump_state((await self._opened()).state)

    @workflow.signal
    def finish(self) -> None:
        """Delete the session, and end."""
        self._finished = True

    @workflow.signal
    def leave(self) -> None:
        """End without deleting the sandbox."""
        self._kept = True

    async def _opened(self) -> WorkflowSandboxSession:
        await workflow.wait_condition(lambda: self._session is not None)
        assert self._session is not None
        return self._session


@workflow.defn
class RunCommand:
    """Runs one command in its own sandbox; can be cancelled."""

    @workflow.run
    async def run(self, order: Order, state: dict[str, Any], script: str) -> None:
        client = temporal_sandbox_client(
            order.provider,
            ActivityConfig(heartbeat_timeout=timedelta(seconds=order.heartbeat_s)),
        )
        session: SandboxSession = await client.resume(load_state(state))
        await session.start()
        await session.exec(script)
