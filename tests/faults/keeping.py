"""A workflow that keeps a session, and uses it as directed."""

from __future__ import annotations

from support import unique
from temporalio.client import Client, WorkflowHandle
from workflows.fleet import KeepSession, Kept

Handle = WorkflowHandle[KeepSession, None]


async def keep(client: Client, queue: str, kept: Kept | None = None) -> Handle:
    """Start one, at provider `local` unless `kept` says otherwise."""
    return await client.start_workflow(
        KeepSession.run, kept or Kept(), id=unique("kept"), task_queue=queue
    )


async def do(handle: Handle, command: str) -> str:
    """Return what a command writes."""
    return await handle.execute_update(KeepSession.do, command)


async def end(handle: Handle) -> None:
    """Have the session deleted."""
    await handle.signal(KeepSession.finish)
    await handle.result()
