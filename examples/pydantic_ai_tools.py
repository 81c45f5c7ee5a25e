"""An agent of Pydantic AI whose tools work in a sandbox.

Pydantic AI calls the model in an activity. The tools run in the workflow, where each operation of
the session is an activity.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["pydantic-ai-slim[openai]>=2.60,<3", "sandbox-core", "sandbox-bubblewrap"]
# [tool.uv.sources]
# sandbox-core = { path = "..", editable = true }
# sandbox-bubblewrap = { path = "../plugins/sandbox-bubblewrap", editable = true }
# ///

import asyncio
import io
import os
import sys
import uuid
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.durable_exec.temporal import (
    PydanticAIPlugin,
    PydanticAIWorkflow,
    TemporalDurability,
)
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from temporalio import workflow
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

from sandbox_core.worker import SandboxPlugin
from sandbox_core.workflow import WorkflowSandboxSession, temporal_sandbox_client

TASK = "How many prime numbers are there below 10000? Write a script, and run it."
PRIMES = "print(sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, 10000)))\n"


def stand_in(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Do the task without a model: write the script, run it, report."""
    returns = [p.content for m in messages for p in m.parts if isinstance(p, ToolReturnPart)]
    if not returns:
        call = ToolCallPart("write_file", {"path": "primes.py", "content": PRIMES})
    elif len(returns) == 1:
        call = ToolCallPart("run_command", {"command": "python3 primes.py"})
    else:
        return ModelResponse([TextPart(f"There are {str(returns[-1]).strip()} of them.")])
    return ModelResponse([call])


coder = Agent(
    "openai:gpt-5-mini" if os.environ.get("OPENAI_API_KEY") else FunctionModel(stand_in),
    name="coder",
    instructions="Solve the task with the tools, which work in a sandbox.",
    capabilities=[TemporalDurability()],
)
IN_WORKFLOW = {"temporal": False}  # Not in an activity of Pydantic AI.


@coder.tool_plain(metadata=IN_WORKFLOW)
async def run_command(command: str) -> str:
    """Run a shell command, and return its output and exit code."""
    result = await session().exec(command, timeout=60)
    output = (result.stdout + result.stderr).decode(errors="replace")
    return output if result.exit_code == 0 else f"{output}\nexit code {result.exit_code}"


@coder.tool_plain(metadata=IN_WORKFLOW)
async def write_file(path: str, content: str) -> str:
    """Write a text file."""
    await session().write(Path(path), io.BytesIO(content.encode()))
    return "written"


def session() -> WorkflowSandboxSession:
    """Return the session of the workflow that runs the tool."""
    instance = workflow.instance()
    assert isinstance(instance, Solve)
    return instance.session


@workflow.defn
class Solve(PydanticAIWorkflow):
    """Solves a task in a sandbox of its own."""

    __pydantic_ai_agents__ = (coder,)
    session: WorkflowSandboxSession

    @workflow.run
    async def run(self, task: str, provider: str) -> str:
        """Return the agent's answer."""
        client = temporal_sandbox_client(provider)
        self.session = await client.create()
        try:
            async with self.session:
                return (await coder.run(task)).output
        finally:
            await client.delete(self.session)


async def main(provider: str) -> None:
    """Run a worker, have the agent solve the task, and print its answer."""
    settings = ClientConfig.load_client_connect_config()
    settings.setdefault("target_host", "localhost:7233")
    client = await Client.connect(**settings, plugins=[PydanticAIPlugin(), SandboxPlugin()])
    async with Worker(client, task_queue="pydantic-ai", workflows=[Solve]):
        answer = await client.execute_workflow(
            Solve.run,
            args=[TASK, provider],
            id=f"pydantic-ai-{uuid.uuid4().hex[:8]}",
            task_queue="pydantic-ai",
        )
    print(answer)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else "bubblewrap"))
