"""A workflow that runs many commands concurrently."""

from __future__ import annotations

import asyncio

from temporalio import workflow
from workflows.sessions import new_session


@workflow.defn
class Crowd:
    """Runs commands at once that say when they begin and end; pinned ones after a terminal."""

    @workflow.run
    async def run(self, pinned: bool, log: str, count: int) -> None:
        async with new_session("local") as session:
            if pinned:
                await session.pty_exec_start("cat", tty=True, yield_time_s=0.1)
            command = f"echo + >>{log}; sleep 0.3; echo - >>{log}"
            await asyncio.gather(*(session.exec(command) for _ in range(count)))
