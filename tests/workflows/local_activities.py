"""A workflow whose commands are local activities."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agents.sandbox import Manifest
from agents.sandbox.errors import SandboxError
from agents.sandbox.types import ExecResult
from temporalio import workflow
from temporalio.exceptions import ActivityError

from sandbox_core.errors import SandboxCoreError
from sandbox_core.workflow import temporal_sandbox_client


@dataclass
class Branches:
    """Commands that run one after another in each branch, and all branches at once."""

    root: str
    """An existing directory, which stays when the session is deleted."""

    commands: list[list[str]] = field(default_factory=list)
    timeout: float | None = None
    """That of the commands that would sleep for a minute."""


@workflow.defn
class RunLocally:
    """Returns what each branch has seen; of the commands that run, it can give up all."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[ExecResult]] = set()

    @workflow.run
    async def run(self, task: Branches) -> list[list[str]]:
        client = temporal_sandbox_client("local", local_activities=True)
        session = await client.create(manifest=Manifest(root=task.root))
        async with session:

            async def one(command: str) -> str:
                try:
                    timeout = task.timeout if "sleep 60" in command else None
                    running = asyncio.create_task(session.exec(command, timeout=timeout))
                    self._running.add(running)
                    ran = await running
                except (SandboxError, SandboxCoreError, ActivityError) as error:
                    return type(error).__name__
                return ran.stdout.decode()

            async def branch(commands: list[str]) -> list[str]:
                return [await one(command) for command in commands]

            await one("true")  # An activity, which shows that there is the helper.
            seen = await asyncio.gather(*map(branch, task.commands))
        await client.delete(session)
        return list(seen)

    @workflow.signal
    def give_up(self) -> None:
        for each in self._running:
            each.cancel()
