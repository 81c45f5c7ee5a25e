"""The workflows that `faults.py` runs on both sides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import workflow
from temporalio.workflow import ActivityConfig

# This module is loaded once more for every workflow; what it imports is not.
with workflow.unsafe.imports_passed_through():
    from agents import Runner
    from agents.run import RunConfig
    from agents.run_config import SandboxRunConfig
    from agents.sandbox import Manifest, SandboxAgent, entries
    from agents.sandbox.capabilities import Filesystem, Shell
    from agents.sandbox.sandboxes import unix_local
    from agents.sandbox.session.sandbox_client import BaseSandboxClient
    from agents.sandbox.session.sandbox_session import SandboxSession
    from agents.sandbox.snapshot import NoopSnapshotSpec
    from peer_workflows import OURS
    from temporalio.openai_agents.workflow import temporal_sandbox_client as peer_sandbox_client

    from sandbox_core.workflow import temporal_sandbox_client

HEARTBEAT = timedelta(seconds=2)
FIRST_USES = 8
WRITTEN, EDITED = "as the manifest has it", "as the agent has it"
_FILE = Path("notes.txt")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a workflow is to do, and with whose client.

    Attributes:
        side: Whose client it uses.
        provider: The name that it asks for.
        limit_s: The start-to-close timeout of its activities.
        act: What it does, see `_act`, or by which script of the model its agent acts.
        command: What it runs in the sandbox, if it runs something.
        holds: Whether it waits for `Session.proceed` before it acts.
    """

    side: str
    provider: str = "local"
    limit_s: float = 60
    act: str = "nothing"
    command: str = "true"
    holds: bool = False


def sandbox_client(task: Task) -> BaseSandboxClient[Any]:
    """Return the client of one side: all that differs in a workflow.

    Only the activities of sandbox-core heartbeat. With a heartbeat timeout, whatever takes longer
    than that would fail at the peer.
    """
    config = ActivityConfig(start_to_close_timeout=timedelta(seconds=task.limit_s))
    if task.side == OURS:
        return temporal_sandbox_client(
            task.provider, ActivityConfig(**config, heartbeat_timeout=HEARTBEAT)
        )
    make: Callable[..., BaseSandboxClient[Any]] = peer_sandbox_client
    return make(task.provider, config)


@workflow.defn
class Session:
    """Opens a session, does one thing with it, deletes its sandbox, and answers what came of it."""

    def __init__(self) -> None:
        self._is_open = False
        self._proceeds = False

    @workflow.run
    async def run(self, task: Task) -> str:
        client = sandbox_client(task)
        session = await client.create(
            manifest=Manifest(entries={_FILE: entries.File(content=WRITTEN.encode())}),
            snapshot=NoopSnapshotSpec(),
            options=unix_local.UnixLocalSandboxClientOptions(),
        )
        try:
            async with session:
                self._is_open = True
                await workflow.wait_condition(lambda: self._proceeds or not task.holds)
                return await _act(session, task)
        finally:
            await client.delete(session)

    @workflow.update
    async def opened(self) -> None:
        """Return as soon as the session is open."""
        await workflow.wait_condition(lambda: self._is_open)

    @workflow.signal
    def proceed(self) -> None:
        """Go on to what is to be done."""
        self._proceeds = True


async def _act(session: SandboxSession, task: Task) -> str:
    if task.act == "run":
        return (await session.exec(task.command)).stdout.decode()
    if task.act == "edit":
        await session.exec(f"printf '{EDITED}' > {_FILE}")
        # As the SDK's runtime begins a run with a session that it is given.
        if not await session.running():
            await session.start()
        return await _read(session)
    if task.act == "read":
        await session.exec(task.command)
        return f"{len((await session.read(_FILE)).read()):,} bytes"
    if task.act == "first uses":
        texts = await asyncio.gather(*(_read(session) for _ in range(FIRST_USES)))
        return " ".join(set(texts))
    return ""


async def _read(session: SandboxSession) -> str:
    content: bytes = (await session.read(_FILE)).read()
    return content.decode()


@workflow.defn
class Agent:
    """Runs an agent by the script that `act` names; answers with what its model is told."""

    @workflow.run
    async def run(self, task: Task) -> str:
        agent = SandboxAgent(name="Scripted", model=task.act, capabilities=[Shell(), Filesystem()])
        sandbox = SandboxRunConfig(
            client=sandbox_client(task),
            options=unix_local.UnixLocalSandboxClientOptions(),
            snapshot=NoopSnapshotSpec(),
        )
        result = await Runner.run(agent, "Begin.", run_config=RunConfig(sandbox=sandbox))
        told = (item.get("output") for item in result.to_input_list())
        return " ".join(str(output) for output in told if output is not None)
