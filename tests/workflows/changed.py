"""A workflow with the name of another, as after a change that forgot the running ones."""

from __future__ import annotations

from temporalio import workflow

from sandbox_core.workflow import temporal_sandbox_client


@workflow.defn(name="EveryOperation")
class ChangedEveryOperation:
    """Asks for the same create, and then for something else."""

    @workflow.run
    async def run(self, provider: str, archive: bytes) -> None:
        session = await temporal_sandbox_client(provider).create()
        await session.running()
