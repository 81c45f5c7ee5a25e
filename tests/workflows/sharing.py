"""Workflows that share a session among handles, and with children."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from temporalio import workflow
from temporalio.workflow import ActivityConfig
from workflows.sessions import MANIFEST

from sandbox_core.workflow import TemporalSandboxClient, temporal_sandbox_client


@dataclass
class Shared:
    """How many share a session, and what each does with it."""

    handles: int = 0
    children: int = 0
    commands: int = 5
    pause_s: float = 0.0
    whole: bool = False
    """Each starts the session and shuts it down, as a run does that is given its state."""

    provider: str = "local"


def _client(shared: Shared) -> TemporalSandboxClient:
    return temporal_sandbox_client(
        shared.provider,
        ActivityConfig(
            start_to_close_timeout=timedelta(seconds=60), heartbeat_timeout=timedelta(seconds=2)
        ),
    )


async def _work(session: SandboxSession, name: str, shared: Shared, *, first: int = 0) -> None:
    for number in range(first, shared.commands):
        ran = await session.exec(f"echo {name}.{number} >> lines.txt; cat hello.txt")
        assert b"hello\n" == ran.stdout, ran
        if shared.pause_s:
            await workflow.sleep(shared.pause_s)


async def _use(
    client: TemporalSandboxClient, state: SandboxSessionState, name: str, shared: Shared
) -> None:
    session = await client.resume(state)
    if shared.whole:
        async with session:
            await _work(session, name, shared)
    else:
        await _work(session, name, shared)


@workflow.defn
class UseShared:
    """Uses the session whose state it is given."""

    @workflow.run
    async def run(self, state: dict[str, Any], name: str, shared: Shared) -> None:
        client = _client(shared)
        await _use(client, client.deserialize_session_state(state), name, shared)


@workflow.defn
class ShareSession:
    """Makes a session, which many use at once with itself; returns the lines that they wrote."""

    def __init__(self) -> None:
        self._session: SandboxSession | None = None
        self._begun = False

    @workflow.run
    async def run(self, shared: Shared) -> list[str]:
        client = _client(shared)
        self._session = session = await client.create(manifest=MANIFEST)
        try:
            await session.start()
            state = client.serialize_session_state(session.state)
            await asyncio.gather(
                self._work_too(session, shared),
                *(
                    _use(client, session.state, f"handle-{number}", shared)
                    for number in range(shared.handles)
                ),
                *(
                    workflow.execute_child_workflow(
                        UseShared.run,
                        args=[state, f"child-{number}", shared],
                        id=f"{workflow.info().workflow_id}-{number}",
                    )
                    for number in range(shared.children)
                ),
            )
            return (await session.exec("cat lines.txt")).stdout.decode().split()
        finally:
            await client.delete(session)

    async def _work_too(self, session: SandboxSession, shared: Shared) -> None:
        await _work(session, "owner", replace(shared, commands=1))
        self._begun = True
        await _work(session, "owner", shared, first=1)

    @workflow.update
    async def begun(self) -> None:
        """Return when the owner has run a command beside the others."""
        await workflow.wait_condition(lambda: self._begun)

    @workflow.query
    def root(self) -> str:
        """Return the root of the workspace."""
        return "" if self._session is None else self._session.state.manifest.root
