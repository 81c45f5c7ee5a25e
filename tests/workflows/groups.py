"""A workflow with two sessions, one of them held by two handles."""

from __future__ import annotations

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.workflow import temporal_sandbox_client


@workflow.defn
class UsesTwoSandboxes:
    """Says in each command which sandbox it is for."""

    @workflow.run
    async def run(self) -> None:
        users = ActivityConfig(event_groups=[workflow.create_event_group("tests")])
        client = temporal_sandbox_client("local", users)
        first, second = await client.create(), await client.create()
        async with first, second:
            await second.exec("echo second")
            await first.exec("echo first")
            again = await client.resume(first.state)
            await again.exec("echo first again")
        await client.delete(second)
        await client.delete(first)
