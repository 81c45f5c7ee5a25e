"""`sandbox-core audit`: shows what a workflow has done in its sandboxes, from its history."""

from __future__ import annotations

import dataclasses

import typer
from rich.text import Text
from temporalio.service import RPCError, RPCStatusCode

from sandbox_core.cli.connection import ServerUnavailable, connect_with_storage, server_errors
from sandbox_core.cli.history import Operation, operations_of
from sandbox_core.cli.printing import new_table, print_json, print_table


async def run_audit(
    *,
    workflow_id: str,
    run_id: str | None,
    storage: str | None,
    as_json: bool,
    address: str | None,
    namespace: str | None,
) -> int:
    """Show the operations of one run of a workflow; return 0.

    Raises:
        ServerUnavailable: The server cannot be reached, refuses, or has no such workflow.
        StorageError: `storage` is not a storage URL.
    """
    client = await connect_with_storage(address, namespace, storage)
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    with server_errors(client):
        try:
            operations = [each async for each in operations_of(client, handle)]
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            which = f"run {run_id!r} of workflow {workflow_id!r}" if run_id else repr(workflow_id)
            raise ServerUnavailable(
                f"namespace {client.namespace} has no workflow {which}, or no longer: check the id "
                f"and --namespace."
            ) from error
    if as_json:
        print_json([dataclasses.asdict(each) for each in operations])
    else:
        _print(operations)
    return 0


def _print(operations: list[Operation]) -> None:
    if operations:
        numbers = ("TOOK", "ATTEMPTS", "IN", "OUT")
        texts = ("TIME", "PROVIDER", "SESSION", "OPERATION", "WHAT", "OUTCOME")
        table = new_table(*texts, *numbers, "WORKER", right=numbers)
        for each in operations:
            table.add_row(*map(Text, _row(each)))
        print_table(table)
    commands = sum(each.exit_code is not None for each in operations)
    unsuccessful = sum(bool(each.exit_code) for each in operations)
    failed = sum(each.outcome not in ("ok", "pending") for each in operations)
    sessions = len({each.session_id for each in operations} - {None})
    typer.echo(
        f"{_count(len(operations), 'operation')} in {_count(sessions, 'session')}, {failed} of "
        f"which failed; {_count(commands, 'command')}, {unsuccessful} of which did not exit with 0"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _row(each: Operation) -> list[str]:
    outcome = each.outcome if each.exit_code is None else f"exit {each.exit_code}"
    return [
        each.scheduled_at,
        each.provider,
        (each.session_id or "")[:8],
        each.operation,
        each.what,
        outcome if each.error is None else f"{outcome}: {each.error}",
        "" if each.took_s is None else f"{each.took_s:.3f} s",
        "" if each.attempts is None else str(each.attempts),
        f"{each.input_bytes:,}",
        f"{each.output_bytes:,}",
        each.worker or "",
    ]
