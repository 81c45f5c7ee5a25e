"""Ends a command that a local activity has left running, if its workflow is closed.

Another activity follows, which awaits the command's end and learns from its heartbeats that the
workflow is closed. If the workflow was terminated in the meantime, there is none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from sandbox_core.providers.registry import Provider
from sandbox_core.wire.messages import ExecRequest
from sandbox_core.worker.commands.ending import end_command
from sandbox_core.worker.commands.helper import helper_for
from sandbox_core.worker.commands.install import Unusable
from sandbox_core.worker.commands.run import Unfinished

logger = logging.getLogger(__name__)

FOLLOWS_S = 10.0
"""How long the other activity may take before Temporal is asked whether the workflow is closed.

It is started by the end of the workflow task, which waits for other local activities.
"""

_watched: WeakKeyDictionary[SandboxSession, dict[str, asyncio.Task[None]]] = WeakKeyDictionary()


@contextmanager
def watching(provider: Provider, session: SandboxSession, request: ExecRequest) -> Iterator[None]:
    """Watch the command of `request` from when this attempt leaves it running until the next."""
    watches = _watched.setdefault(session, {})
    earlier = watches.pop(request.operation_id, None)
    if earlier is not None:
        earlier.cancel()
    try:
        yield
    except (Unfinished, asyncio.CancelledError) as error:
        started = not isinstance(error, Unfinished) or error.started
        if request.within_s is not None and started and activity.in_activity():
            watch = asyncio.create_task(
                _watch(provider, session, request, activity.client(), activity.info())
            )
            watches[request.operation_id] = watch
            watch.add_done_callback(lambda _: _forget(watches, request.operation_id, watch))
        raise


def abandon(session: SandboxSession) -> None:
    """Watch no command of a session that is closed."""
    for watch in _watched.pop(session, {}).values():
        watch.cancel()


def _forget(
    watches: dict[str, asyncio.Task[None]], operation_id: str, watch: asyncio.Task[None]
) -> None:
    if watches.get(operation_id) is watch:
        del watches[operation_id]


async def _watch(
    provider: Provider,
    session: SandboxSession,
    request: ExecRequest,
    client: Client,
    info: activity.Info,
) -> None:
    await asyncio.sleep(FOLLOWS_S)
    workflow = client.get_workflow_handle(info.workflow_id or "", run_id=info.workflow_run_id)
    try:
        if (await workflow.describe()).status is WorkflowExecutionStatus.RUNNING:
            return  # Another worker has the activity, or will have it.
        helper = await helper_for(provider, session, request.user, about=request.command)
        await end_command(helper, request.operation_id, "cancelled")
    except (RPCError, SandboxError, Unusable) as error:
        logger.debug("a command without an activity runs until its timeout: %r", error)
