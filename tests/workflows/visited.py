"""A workflow whose sandbox others look into while it runs."""

from __future__ import annotations

from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import workflow

from sandbox_core.workflow import temporal_sandbox_client


@workflow.defn
class Visited:
    """Owns a started sandbox, and does in it what it is told until it is told to end."""

    def __init__(self) -> None:
        self._session: SandboxSession | None = None
        self._ended = False

    @workflow.run
    async def run(self, provider: str) -> None:
        client = temporal_sandbox_client(provider)
        session = await client.create()
        # Without `async with`: nothing is to be done when a worker forgets the workflow.
        await session.start()
        self._session = session
        await workflow.wait_condition(lambda: self._ended)
        await client.delete(session)

    @workflow.update
    async def sandbox_root(self) -> str:
        """Return where its workspace is, as soon as it can be used."""
        return (await self._started()).state.manifest.root

    @workflow.update
    async def exec(self, command: str) -> str:
        """Run a command to its end, and return its output."""
        result = await (await self._started()).exec(command)
        return result.stdout.decode()

    @workflow.update
    async def start(self, command: str, tty: bool = False) -> int | None:
        """Start a process, and return its number."""
        session = await self._started()
        return (await session.pty_exec_start(command, yield_time_s=0.25, tty=tty)).process_id

    @workflow.signal
    def end(self) -> None:
        self._ended = True

    async def _started(self) -> SandboxSession:
        await workflow.wait_condition(lambda: self._session is not None)
        assert self._session is not None
        return self._session
