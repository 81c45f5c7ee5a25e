"""Workflows of ours and of the OpenAI plugin's own sandboxes, for one worker."""

from __future__ import annotations

import random
import time
from datetime import datetime, timezone

from agents import Runner
from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.run_internal import run_grouping
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Shell
from agents.sandbox.capabilities.tools import shell_tool
from agents.sandbox.memory import rollouts
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClientOptions
from temporalio import workflow
from temporalio.openai_agents.workflow import temporal_sandbox_client as peer_client

from sandbox_core.workflow import temporal_sandbox_client


async def _run(sandbox: SandboxRunConfig) -> dict[str, object]:
    agent = SandboxAgent(name="Agent", model="agent", capabilities=[Shell()])
    result = await Runner.run(agent, "Go.", run_config=RunConfig(sandbox=sandbox))
    kept = result.to_state().to_json()["sandbox"]["session_state"]
    return {"said": result.final_output, "snapshot": kept["snapshot"]["type"]}


@workflow.defn
class OfThePeer:
    """Runs an agent with the OpenAI plugin's own client."""

    @workflow.run
    async def run(self) -> dict[str, object]:
        client = peer_client("peer")
        return await _run(SandboxRunConfig(client=client, options=UnixLocalSandboxClientOptions()))


@workflow.defn
class OfOurs:
    """Runs an agent with our client."""

    @workflow.run
    async def run(self) -> dict[str, object]:
        return await _run(SandboxRunConfig(client=temporal_sandbox_client("local")))


@workflow.defn(sandboxed=False)
class OutsideOfOurs:
    """Asks the names that we have replaced, without any session of ours."""

    @workflow.run
    async def run(self) -> dict[str, bool]:
        before = _state(workflow.random())
        run_grouping.resolve_run_grouping(conversation_id=None, session=None, group_id=None)
        vars(shell_tool)["uuid"].uuid4()
        seconds = vars(shell_tool)["time"].perf_counter()
        now = vars(rollouts)["datetime"].now(tz=timezone.utc)
        return {
            "took none of the workflow's randomness": before == _state(workflow.random()),
            "had the host's clock": abs(seconds - time.perf_counter()) < 5,
            "had the host's date": abs(now.timestamp() - datetime.now().timestamp()) < 5,
        }


def _state(source: random.Random) -> object:
    return source.getstate()
