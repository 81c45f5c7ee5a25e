"""The handlers of the operations that run commands."""

from __future__ import annotations

from agents.sandbox.session.pty_types import PtyExecUpdate

from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.limits import current_limits
from sandbox_core.worker.call import Call
from sandbox_core.worker.commands import processes
from sandbox_core.worker.commands.output import cut_output
from sandbox_core.worker.handlers.registry import handles


@handles(ops.EXEC)
async def _exec(call: Call, request: m.ExecRequest) -> m.ExecResponse:
    processes.announce(request, durable=call.durable)
    async with call.pool.use(request) as session:
        result = await processes.run(session, request, durable=call.durable)
    limit = current_limits().output
    return m.ExecResponse(
        stdout=cut_output(result.stdout, limit),
        stderr=cut_output(result.stderr, limit),
        exit_code=result.exit_code,
    )


@handles(ops.PTY_EXEC_START)
async def _pty_exec_start(call: Call, request: m.PtyExecStartRequest) -> m.PtyResponse:
    processes.announce(request, durable=call.durable)
    async with call.pool.use(request) as session:
        update = await processes.start(session, request, durable=call.durable)
    return _pty_update(update)


@handles(ops.PTY_WRITE_STDIN)
async def _pty_write_stdin(call: Call, request: m.PtyWriteStdinRequest) -> m.PtyResponse:
    processes.announce(request, durable=call.durable)
    async with call.pool.use(request) as session:
        update = await processes.write(session, request, durable=call.durable)
    return _pty_update(update)


def _pty_update(update: PtyExecUpdate) -> m.PtyResponse:
    return m.PtyResponse(
        process_id=update.process_id,
        output=update.output,
        exit_code=update.exit_code,
        original_token_count=update.original_token_count,
    )


@handles(ops.PTY_TERMINATE_ALL)
async def _pty_terminate_all(call: Call, request: m.PtyTerminateAllRequest) -> None:
    async with call.pool.use(request) as session:
        await processes.terminate_all(session, durable=call.durable)
        await session.pty_terminate_all()
