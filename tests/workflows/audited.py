"""A workflow that runs one command."""

from __future__ import annotations

from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClientOptions
from temporalio import workflow

from sandbox_core.workflow import TemporalSandboxClient


@workflow.defn
class Audited:
    """Runs a command in a sandbox, and deletes it."""

    @workflow.run
    async def run(self, command: str) -> int:
        client = TemporalSandboxClient("local")
        session = await client.create(options=UnixLocalSandboxClientOptions())
        try:
            await session.start()
            return (await session.exec(command)).exit_code
        finally:
            await client.delete(session)
