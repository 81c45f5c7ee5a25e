"""Agents in a session that the workflow itself has opened."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from pathlib import Path

from agents import Agent, Runner
from agents.models.interface import Model
from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.capabilities import Capability, Shell, Skill, Skills
from agents.sandbox.entries import File
from agents.testing import assistant_message
from scripts import Answer, Scripted, call, commands_then_report
from temporalio import workflow

from sandbox_core.workflow import WorkflowSandboxSession, temporal_sandbox_client, with_session

ANSWERS: Mapping[str, Answer] = {
    "writer": commands_then_report("cat seed.txt; echo written > made.txt"),
    "reader": commands_then_report("cat seed.txt made.txt"),
    "one": commands_then_report("echo one > one.txt; sleep 0.5; cat seed.txt"),
    "two": commands_then_report("echo two > two.txt; sleep 0.5; cat seed.txt"),
    "asks": lambda outputs: (
        assistant_message(f"it said {outputs[0].strip()}")
        if outputs
        else call("ask_reader", input="Read.")
    ),
    "hands over": lambda outputs: call("transfer_to_reader"),
    "reads after the handoff": lambda outputs: (
        assistant_message(outputs[-1].split("Output:\n")[-1])
        if len(outputs) > 1
        else call("exec_command", cmd="cat seed.txt made.txt")
    ),
    "skilled": commands_then_report("cat .agents/greeting/SKILL.md | tail -1; cat seed.txt"),
}


def agent(name: str, *, plugin: bool, model: str | None = None, **rest: object) -> SandboxAgent:
    """Return an agent whose model answers as `ANSWERS` says."""
    named = model or name
    # The OpenAI plugin looks models up by name, on the worker. These need nothing but themselves.
    found: str | Model = named if plugin else Scripted(ANSWERS[named])
    capabilities: list[Capability] = [Shell()]
    return SandboxAgent(
        name=name,
        model=found,
        **{"capabilities": capabilities, **rest},  # type: ignore[arg-type]  # the SDK's own arguments
        default_manifest=Manifest(entries={"seed.txt": File(content=b"not this one\n")}),
    )


async def _run(starting: Agent[None], session: WorkflowSandboxSession) -> str:
    sandbox = SandboxRunConfig(client=with_session(session))
    # Without the plugin the SDK sends its traces to OpenAI, from a thread.
    config = RunConfig(sandbox=sandbox, tracing_disabled=isinstance(starting.model, Model))
    result = await Runner.run(starting, "Go.", run_config=config)
    return str(result.final_output)


async def several_runs(session: WorkflowSandboxSession, plugin: bool) -> list[str]:
    """Two agents, one after the other."""
    writer, reader = (agent(name, plugin=plugin) for name in ("writer", "reader"))
    return [await _run(writer, session), await _run(reader, session)]


async def at_once(session: WorkflowSandboxSession, plugin: bool) -> list[str]:
    """Two agents at the same time."""
    said = await asyncio.gather(
        *(_run(agent(name, plugin=plugin), session) for name in ("one", "two"))
    )
    return [*said, *sorted(Path(entry.path).name for entry in await session.ls("."))]


async def as_tool(session: WorkflowSandboxSession, plugin: bool) -> list[str]:
    """An agent that asks another one as its tool."""
    await _run(agent("writer", plugin=plugin), session)
    tool = agent("reader", plugin=plugin).as_tool("ask_reader", "Ask the reader.")
    asks = agent("asks", plugin=plugin, tools=[tool])
    return [await _run(asks, session)]


async def handoff(session: WorkflowSandboxSession, plugin: bool) -> list[str]:
    """An agent that hands over to another one."""
    await _run(agent("writer", plugin=plugin), session)
    reader = agent("reader", plugin=plugin, model="reads after the handoff")
    return [await _run(agent("hands over", plugin=plugin, handoffs=[reader]), session)]


async def skills(session: WorkflowSandboxSession, plugin: bool) -> list[str]:
    """An agent whose capability needs a file that the session has not."""
    skill = Skill(name="greeting", description="How to greet", content=b"Say hello.\n")
    return [
        await _run(
            agent("skilled", plugin=plugin, capabilities=[Shell(), Skills(skills=[skill])]), session
        )
    ]


SCENES = {scene.__name__: scene for scene in (several_runs, at_once, as_tool, handoff, skills)}


@workflow.defn
class Live:
    """Opens one session, lets agents run in it, and says what is left in it then."""

    @workflow.run
    async def run(self, scene: str, plugin: bool) -> list[str]:
        client = temporal_sandbox_client("local")
        manifest = Manifest(entries={"seed.txt": File(content=b"seed\n")})
        session = await client.create(manifest=manifest)
        try:
            async with session:
                said = await SCENES[scene](session, plugin)
                await session.write(Path("after.txt"), io.BytesIO(b"open\n"))
                left = (await session.read(Path("after.txt"))).read()
                return [*said, left.decode()]
        finally:
            await client.delete(session)
