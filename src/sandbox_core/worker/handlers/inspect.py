"""The handler of `inspect`, by which those who do not own a session find it on its worker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.providers.registry import Provider
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.worker.call import Call
from sandbox_core.worker.commands.helper import used_helper, users_of
from sandbox_core.worker.commands.protocol import Answer
from sandbox_core.worker.handlers.registry import handles
from sandbox_core.worker.sessions.pool import OpenSession
from sandbox_core.worker.sessions.resume import sandbox_identity

logger = logging.getLogger(__name__)

_LISTED_WITHIN_S = 5.0


@handles(ops.INSPECT)
async def _inspect(call: Call, request: m.InspectRequest) -> m.InspectResponse:
    held = next(_holding(call, request.sandbox_id), None)
    if held is None:
        return m.InspectResponse()
    # Those that have shut the session down are the last choice: they may be closed.
    users = sorted(held.users.items(), key=lambda item: (item[1].left, -item[1].epoch))
    runs = dict.fromkeys((key[0], key[1]) for key, user in users if not user.left)
    return m.InspectResponse(
        session=m.SessionRef(session_id=held.session_id, epoch=users[0][1].epoch),
        supports_pty=held.session.supports_pty(),
        users=tuple(m.WorkflowRun(workflow_id=run[0], run_id=run[1]) for run in runs),
        in_progress=len(held.in_use),
        idle_s=0.0 if held.in_use else time.monotonic() - held.used_at,
        commands=await _commands(call.provider, held.session),
    )


def _holding(call: Call, sandbox_id: str) -> Iterator[OpenSession]:
    for held in call.pool.sessions():
        if sandbox_identity(call.provider, held.session.state) == sandbox_id and held.users:
            yield held


async def _commands(
    provider: Provider, session: SandboxSession
) -> tuple[m.RunningCommand, ...] | None:
    found: list[m.RunningCommand] = []
    try:
        for user in users_of(session):
            helper = await asyncio.wait_for(used_helper(provider, session, user), _LISTED_WITHIN_S)
            if helper is not None:
                answer = await asyncio.wait_for(helper.ask("list", []), _LISTED_WITHIN_S)
                found += _running(answer, user)
    except Exception as error:  # noqa: BLE001 - the boundary to a provider's exec
        logger.info("the commands of a sandbox could not be listed: %s", error)
        return None
    return tuple(sorted(found, key=lambda command: -command.for_s))


def _running(answer: Answer, user: str | None) -> Iterator[m.RunningCommand]:
    now = time.time()
    for entry in answer.entries:
        if entry.state == "running":
            yield m.RunningCommand(
                operation_id=entry.key,
                process_id=entry.number or None,
                tty=entry.mode == "tty",
                for_s=max(0.0, now - entry.started_ms / 1000),
                user=user,
            )
