"""The handlers of the operations that run commands."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.errors import SessionNotOpen
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.worker.attempts import attempt
from sandbox_core.worker.call import Call
from sandbox_core.worker.commands import abandoned, closing, processes, run
from sandbox_core.worker.commands.helper import why_plain
from sandbox_core.worker.commands.plain import refuse_if_noted
from sandbox_core.worker.handlers.registry import handles


@asynccontextmanager
async def _use(call: Call, request: m.KeyedRequest) -> AsyncIterator[SandboxSession]:
    """Yield the session of a request that must not be carried out twice.

    Raises:
        OutcomeUnknown: An earlier attempt may have carried it out without a record in the sandbox.
        SessionNotOpen: The session is not held here. The workflow then repeats the request as a
            first attempt, unless the error says that an earlier attempt may have begun.
    """
    refuse_if_noted(request)
    if attempt() > 1 and not call.pool.holds(request.session):
        raise SessionNotOpen.with_earlier_attempt(request.session.session_id)
    async with call.pool.use(request) as session:
        yield session


_SHORT = 32 * 1024
"""How many bytes a response to a local activity may have.

All of one workflow task are sent to the server at once, and gRPC's messages are limited to 4 MB.
"""


@handles(ops.EXEC)
async def _exec(call: Call, request: m.ExecRequest) -> m.ExecResponse:
    if request.within_s is None:
        return await _to_its_end(call, request)
    try:
        response = await _to_its_end(call, request)
        response = response.model_copy(update={"request": request})
    except run.Unfinished as error:
        return m.ExecResponse(unfinished="started" if error.started else "not_started")
    is_short = len(json.dumps(response.dump())) <= _SHORT
    return response if is_short else m.ExecResponse(unfinished="started")


async def _to_its_end(call: Call, request: m.ExecRequest) -> m.ExecResponse:
    async with _use(call, request) as session:
        with abandoned.watching(call.provider, session, request):
            ran = await run.run(call.provider, session, request)
        plain = why_plain(call.provider, session, request.user)
    return m.ExecResponse(
        stdout=ran.result.stdout,
        stderr=ran.result.stderr,
        exit_code=ran.result.exit_code,
        at_most_once=plain,
        published=dict(ran.published),
    )


@handles(ops.PTY_EXEC_START)
async def _pty_exec_start(call: Call, request: m.PtyExecStartRequest) -> m.PtyResponse:
    async with _use(call, request) as session:
        polled = await processes.start(call.provider, session, request)
        plain = why_plain(call.provider, session, request.user)
    return _response(polled, plain)


@handles(ops.PTY_WRITE_STDIN)
async def _pty_write_stdin(call: Call, request: m.PtyWriteStdinRequest) -> m.PtyResponse:
    async with _use(call, request) as session:
        polled = await processes.write(call.provider, session, request)
        plain = why_plain(call.provider, session, request.user)
    return _response(polled, plain)


def _response(polled: processes.Polled, plain: str | None) -> m.PtyResponse:
    update = polled.update
    return m.PtyResponse(
        process_id=update.process_id,
        output=update.output,
        exit_code=update.exit_code,
        original_token_count=update.original_token_count,
        offset=polled.offset,
        at_most_once=plain,
        published=dict(polled.published),
    )


@handles(ops.PTY_RESIZE)
async def _pty_resize(call: Call, request: m.PtyResizeRequest) -> None:
    async with call.pool.use(request) as session:
        await processes.resize(call.provider, session, request)


@handles(ops.PTY_TERMINATE_ALL)
async def _pty_terminate_all(call: Call, request: m.PtyTerminateAllRequest) -> None:
    async with call.pool.use(request, shut_down=True) as session:
        await closing.terminate_all(call.provider, session, request.users)
        await session.pty_terminate_all()
