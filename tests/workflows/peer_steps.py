"""A workflow of the OpenAI plugin's own sandboxes, for workers without sandbox-core."""

from __future__ import annotations

import io
from pathlib import Path
from typing import cast

from agents.sandbox import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.openai_agents.sandbox._temporal_sandbox_session import (
    TemporalSandboxSession as PeerSession,
)
from temporalio.openai_agents.workflow import temporal_sandbox_client as peer_client


@workflow.defn
class PeerSteps:
    """Has a session of the OpenAI plugin's own client, and does in it what it is asked to."""

    def __init__(self) -> None:
        self._session: SandboxSession | None = None
        self._finished = False

    @workflow.run
    async def run(self, name: str, manifest: Manifest) -> None:
        client = peer_client(name)
        options = UnixLocalSandboxClientOptions()
        self._session = await client.create(options=options, manifest=manifest)
        await self._session.start()
        await workflow.wait_condition(lambda: self._finished)
        await self._session.stop()
        await self._session.shutdown()
        await client.delete(cast("PeerSession", self._session))

    @workflow.update
    async def do(self, command: str) -> str:
        session = await self._started()
        ran = await session.exec(command)
        return f"{(ran.stdout + ran.stderr).decode()}{ran.exit_code}"

    @workflow.update
    async def use_everything_else(self) -> str:
        """Perform what the other updates do not, and return what the process has said."""
        session = await self._started()
        await session.write(Path("written"), io.BytesIO(b"\xffwritten"))
        content = (await session.read(Path("written"))).read()
        assert content == b"\xffwritten", content
        archive = await session.persist_workspace()
        await session.hydrate_workspace(archive)
        resumed = await peer_client("local").resume(session.state)
        assert resumed.state.session_id == session.state.session_id
        process = await session.pty_exec_start(
            "read line; echo got $line", tty=True, yield_time_s=1
        )
        assert process.process_id is not None
        said = await session.pty_write_stdin(
            session_id=process.process_id, chars="it\n", yield_time_s=5
        )
        return (process.output + said.output).decode()

    @workflow.update
    async def fail(self) -> str:
        """Return the type of what reading a missing file fails with."""
        session = await self._started()
        try:
            await session.read(Path("missing"))
        except ActivityError as error:
            return cast("ApplicationError", error.cause).type or ""
        return "nothing"

    @workflow.signal
    def finish(self) -> None:
        self._finished = True

    async def _started(self) -> SandboxSession:
        await workflow.wait_condition(lambda: self._session is not None)
        session = cast("SandboxSession", self._session)
        # As the SDK's runner does before each run.
        if not await session.running():
            await session.start()
        return session
