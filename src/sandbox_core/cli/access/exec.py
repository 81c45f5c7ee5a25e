"""`sandbox-core exec`: runs one command in the sandbox of a running agent."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import typer
from agents.sandbox.errors import ExecTimeoutError, SandboxError

from sandbox_core.cli.access.holder import Where
from sandbox_core.cli.access.standard_input import read_standard_input
from sandbox_core.cli.access.visit import Visit, own_id
from sandbox_core.cli.outcome import TIMED_OUT, pass_on, reason_of
from sandbox_core.errors import OperationFailed, SandboxCoreError
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops

# The file is gone before the command sees its workspace.
_WITH_INPUT = 'exec <"$0" && rm -f -- "$0" && exec "$@"'


async def run_command(
    sandbox_id: str,
    command: Sequence[str],
    where: Where,
    *,
    timeout: timedelta,
    user: str | None,
    with_input: bool,
    as_json: bool,
) -> int:
    """Run a command, pass on what it has written, and return its exit code.

    If interrupted, the command is ended first.

    Args:
        sandbox_id: The sandbox's id, as `list_sandboxes` shows it.
        command: The program and its arguments; no shell reads them.
        where: Where the sandbox is looked for.
        timeout: How long the command may run; it is then ended, and the exit code is `TIMED_OUT`.
        user: The user to run it as; None for the backend's default one.
        with_input: Whether it gets this process's standard input, which is read to its end first.
        as_json: Whether to print one JSON object instead of the two streams.

    Raises:
        InvalidRequest: The sandbox does not exist, is ambiguous, or the input is too large.
        OutcomeUnknown: The command may have run; it was not repeated.
        SandboxLost: No worker holds the sandbox.
        SandboxCoreError: The command could not be run.
        ServerUnavailable: The server does not answer, or does not run standalone activities.
    """
    visit = await Visit.begin(sandbox_id, where)
    given = await read_standard_input() if with_input else None
    request = m.ExecRequest(
        session=visit.session,
        operation_id=own_id(),
        command=tuple(command),
        timeout=timeout.total_seconds(),
        shell=False,
        user=user,
    )
    try:
        if given is None:
            result = await visit.perform(ops.EXEC, request)
        else:
            result = await _with_input(visit, request, given)
    except ExecTimeoutError:
        typer.echo(f"error: it was ended after {timeout}, its --timeout", err=True)
        return TIMED_OUT
    except SandboxError as error:
        raise OperationFailed(reason_of(error, command)) from error
    return pass_on(result, as_json=as_json)


async def _with_input(visit: Visit, request: m.ExecRequest, given: bytes) -> m.ExecResponse:
    """Run a command with `given` as its standard input, by way of a file in the workspace."""
    path = f".{request.operation_id}.stdin"
    file = {"session": visit.session, "path": path, "user": request.user}
    command = ("sh", "-c", _WITH_INPUT, path, *request.command)
    try:
        await visit.perform(ops.WRITE, m.WriteRequest.model_validate(file), given)
        return await visit.perform(ops.EXEC, request.model_copy(update={"command": command}))
    except BaseException:
        # Perhaps it was never started.
        with suppress(SandboxError, SandboxCoreError):
            await visit.perform(ops.RM, m.RmRequest.model_validate(file))
        raise
