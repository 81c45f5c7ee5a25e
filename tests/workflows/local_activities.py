"""A workflow whose commands are local activities."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agents.sandbox import Manifest
from agents.sandbox.errors import SandboxError
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
    given_up_after_s: float | None = None


@workflow.defn
class RunLocally:
    """Returns what each branch has seen."""

    @workflow.run
    async def run(self, task: Branches) -> list[list[str]]:
        client = temporal_sandbox_client("local", local_activities=True)
        session = await client.create(manifest=Manifest(root=task.root))
        async with session:

            async def one(command: str) -> str:
                try:
                    running = session.exec(command, timeout=task.timeout)
                    ran = await asyncio.wait_for(running, task.given_up_after_s)
                except (SandboxError, SandboxCoreError, ActivityError) as error:
                    return type(error).__name__
                return ran.stdout.decode()

            async def branch(commands: list[str]) -> list[str]:
                return [await one(command) for command in commands]

            await one("true")  # An activity, which shows that there is the helper.
            seen = await asyncio.gather(*map(branch, task.commands))
        await client.delete(session)
        return list(seen)
