"""Many agents of two tenants on one worker: fifty of the one do not hold up two of the other.

Temporal dispatches the tasks in a queue by fairness key, in turns, instead of in order of arrival.
The priority of a workflow is also that of its activities, so it covers what its sandbox does. A
session whose client has `ActivityConfig(priority=...)` has that one instead.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["sandbox-core", "sandbox-local"]
# [tool.uv.sources]
# sandbox-core = { path = "..", editable = true }
# sandbox-local = { path = "../plugins/sandbox-local", editable = true }
# ///

import asyncio
import sys
import time
import uuid

from temporalio import workflow
from temporalio.client import Client, WorkflowHandle
from temporalio.common import Priority
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

from sandbox_core.worker import SandboxPlugin
from sandbox_core.workflow import temporal_sandbox_client

TASK_QUEUE = "many-agents"
TENANTS = {"large": 50, "small": 2}


@workflow.defn
class Agent:
    """Does what an agent would, without a model: it works in a sandbox of its own."""

    @workflow.run
    async def run(self, provider: str) -> None:
        """Take a few steps, and delete the sandbox."""
        client = temporal_sandbox_client(provider)
        session = await client.create()
        try:
            await session.start()
            for step in range(3):
                await session.exec(f"sleep 0.1; echo {step} >> log.txt")
        finally:
            await client.delete(session)


async def start(client: Client, tenant: str, provider: str) -> list[WorkflowHandle[Agent, None]]:
    """Start the agents of a tenant."""
    agents = [
        client.start_workflow(
            Agent.run,
            provider,
            id=f"{tenant}-{uuid.uuid4().hex[:8]}",
            task_queue=TASK_QUEUE,
            priority=Priority(fairness_key=tenant),
        )
        for _ in range(TENANTS[tenant])
    ]
    return await asyncio.gather(*agents)


async def main(provider: str) -> None:
    """Run a worker that is too small for all agents, and start them, the large tenant's first."""
    settings = ClientConfig.load_client_connect_config()
    settings.setdefault("target_host", "localhost:7233")
    client = await Client.connect(**settings, plugins=[SandboxPlugin()])
    began = time.perf_counter()

    async def report(tenant: str, agents: list[WorkflowHandle[Agent, None]]) -> None:
        await asyncio.gather(*(agent.result() for agent in agents))
        seconds = time.perf_counter() - began
        print(f"{seconds:5.1f} s: the {len(agents)} agents of tenant {tenant!r} are done")

    async with Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[Agent],
        max_concurrent_activities=4,
        # Eager execution hands a free slot to the worker's own workflow, whoever else is waiting.
        disable_eager_activity_execution=True,
    ):
        started = [(tenant, await start(client, tenant, provider)) for tenant in TENANTS]
        await asyncio.gather(*(report(*each) for each in started))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else "local"))
