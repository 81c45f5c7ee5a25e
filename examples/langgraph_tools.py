"""An agent of LangGraph whose tools work in a sandbox. The graph is in langgraph_coder.py."""

# /// script
# requires-python = ">=3.10"
# dependencies = ["langchain-openai", "sandbox-bubblewrap", "sandbox-core", "temporalio-langgraph"]
# [tool.uv.sources]
# sandbox-core = { path = "..", editable = true }
# sandbox-bubblewrap = { path = "../plugins/sandbox-bubblewrap", editable = true }
# ///

import asyncio
import sys
import uuid

from langgraph_coder import Solve, coder
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.langgraph import LangGraphPlugin
from temporalio.worker import Worker

from sandbox_core.worker import SandboxPlugin

TASK = "How many prime numbers are there below 10000? Compute it with a command."


async def main(provider: str) -> None:
    """Run a worker, have the graph solve the task, and print the answer."""
    settings = ClientConfig.load_client_connect_config()
    settings.setdefault("target_host", "localhost:7233")
    client = await Client.connect(
        **settings,
        data_converter=pydantic_data_converter,
        plugins=[LangGraphPlugin(graphs={"coder": coder}), SandboxPlugin()],
    )
    async with Worker(client, task_queue="langgraph", workflows=[Solve]):
        answer = await client.execute_workflow(
            Solve.run,
            args=[TASK, provider],
            id=f"langgraph-{uuid.uuid4().hex[:8]}",
            task_queue="langgraph",
        )
    print(answer)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else "bubblewrap"))
