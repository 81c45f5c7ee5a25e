"""`sandbox-core logs`: shows the commands of a workflow, their output, and how they ended."""

from __future__ import annotations

import json
import os
import sys
from contextlib import aclosing

import typer
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sandbox_core.cli.connection import connect_with_storage, server_errors
from sandbox_core.cli.sandboxes import find_sandbox
from sandbox_core.errors import InvalidRequest
from sandbox_core.live import (
    CommandEnded,
    CommandOutput,
    CommandStarted,
    LiveEvent,
    OutputDropped,
    follow,
)


async def run_logs(
    *,
    of: str,
    wait: bool,
    run_id: str | None,
    storage: str | None,
    as_json: bool,
    address: str | None,
    namespace: str | None,
) -> int:
    """Show the commands of a workflow; return 0.

    Args:
        of: The id of the workflow, or that of its sandbox.
        wait: Whether to wait for further ones, until the workflow ends.
        run_id: The run to begin with; None for the latest.
        storage: The workers' storage; None for the environment's, or the default one.
        as_json: Whether to print a JSON object a line for each event.
        address: The Temporal server; None for Temporal's own configuration.
        namespace: The namespace; likewise.

    Raises:
        InvalidRequest: There is neither such a workflow nor such a sandbox.
        ServerUnavailable: The server cannot be reached, or refuses.
        StorageError: `storage` is not a storage URL.
    """
    client = await connect_with_storage(address, namespace, storage)
    workflow_id, run_id = await _workflow(client, of, run_id)
    show, empty = _json if as_json else _Lines().show, True
    try:
        with server_errors(client):
            async with aclosing(follow(client, workflow_id, run_id=run_id, wait=wait)) as events:
                async for event in events:
                    empty = False
                    show(event)
                    sys.stdout.flush()
    except BrokenPipeError:  # For example in `logs | head`. Without this, Python fails at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if empty:
        typer.echo(f"workflow {workflow_id} has run no command in a sandbox", err=True)
    return 0


async def _workflow(client: Client, of: str, run_id: str | None) -> tuple[str, str | None]:
    with server_errors(client):
        try:
            await client.get_workflow_handle(of, run_id=run_id).describe()
        except RPCError as error:
            if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                raise
        else:
            return of, run_id
    try:
        _, sandbox = await find_sandbox(of, (), client)
    except InvalidRequest as error:
        raise InvalidRequest(
            f"namespace {client.namespace} has no workflow {of!r}, and as a sandbox: {error}"
        ) from error
    return sandbox.workflow_id, sandbox.run_id


def _json(event: LiveEvent) -> None:
    sys.stdout.write(json.dumps(event.dump()) + "\n")


class _Lines:
    """Prints commands, and what they write, as a terminal would show it."""

    def __init__(self) -> None:
        self._commands: dict[str, str] = {}
        self._last = ""
        self._at_start_of_line = True

    def show(self, event: LiveEvent) -> None:
        command = self._commands.get(event.operation_id, event.operation_id)
        if isinstance(event, CommandStarted):
            self._commands[event.operation_id] = event.command
        elif self._last != event.operation_id:
            self._line(f"$ {command} (continued)")
        self._last = event.operation_id
        match event:
            case CommandStarted():
                self._line(f"$ {event.command}")
            case CommandOutput():
                sys.stdout.flush()
                sys.stdout.buffer.write(event.data)
                self._at_start_of_line = event.data.endswith(b"\n")
            case OutputDropped():
                size = "the rest" if event.next is None else f"{event.next - event.offset:,} bytes"
                self._line(f"[... {size} of its {event.stream} not shown ...]")
            case CommandEnded():
                exited = f"exit {event.exit_code}"
                self._line(f"[{exited if event.error is None else event.error}]")

    def _line(self, text: str) -> None:
        sys.stdout.write(f"{text}\n" if self._at_start_of_line else f"\n{text}\n")
        self._at_start_of_line = True
