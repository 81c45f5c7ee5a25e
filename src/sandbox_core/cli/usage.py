"""`sandbox-core usage`: how long sandboxes existed, by workflow type and provider."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone

import typer
from rich.text import Text
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from sandbox_core.cli.connection import connect_with_storage, server_errors
from sandbox_core.cli.history import OPENING, Operation, operations_of
from sandbox_core.cli.printing import new_table, print_json, print_table
from sandbox_core.wire import operations as ops


@dataclass(kw_only=True)
class _Sandbox:
    """A sandbox from its creation to its deletion or, without one, to its last workflow's end."""

    provider: str
    workflow_type: str
    """That of the workflow that created it, or of the first that is known to have used it."""

    begins: datetime
    ends: datetime
    deleted: bool = False


@dataclass(kw_only=True)
class _Total:
    """A row of the report."""

    workflow_type: str
    provider: str
    sandboxes: int = 0
    seconds: float = 0.0
    not_deleted: int = 0
    """How many were not deleted by a workflow, and are counted to the end of their last one."""


async def run_usage(
    *,
    since: timedelta,
    storage: str | None,
    as_json: bool,
    address: str | None,
    namespace: str | None,
) -> int:
    """Print how long sandboxes existed within the last `since`, and return 0.

    Raises:
        ServerUnavailable: The server cannot be reached, or refuses.
        StorageError: `storage` is not a storage URL.
    """
    client = await connect_with_storage(address, namespace, storage)
    now = datetime.now(timezone.utc)
    with server_errors(client):
        sandboxes = await _sandboxes(client, begin=now - since, now=now)
    totals = _totals(sandboxes, begin=now - since)
    if as_json:
        print_json([asdict(each) for each in totals])
    else:
        _print(totals)
    return 0


async def _sandboxes(client: Client, *, begin: datetime, now: datetime) -> Iterable[_Sandbox]:
    """Return the sandboxes of all workflows that were open after `begin`."""
    found: dict[tuple[str, str], _Sandbox] = {}
    after = begin.isoformat(timespec="seconds").replace("+00:00", "Z")
    query = f'ExecutionStatus = "Running" OR CloseTime >= "{after}"'
    runs = [each async for each in client.list_workflows(query)]
    for run in sorted(runs, key=lambda each: each.start_time):
        handle = client.get_workflow_handle(run.id, run_id=run.run_id)
        try:
            operations = [each async for each in operations_of(client, handle)]
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            continue  # Its retention has just ended.
        _add(found, run, operations, now)
    return found.values()


def _add(
    found: dict[tuple[str, str], _Sandbox],
    run: WorkflowExecution,
    operations: Iterable[Operation],
    now: datetime,
) -> None:
    """Add what one run did: it opened sandboxes, and deleted some of them."""
    sandbox_of: dict[str, tuple[str, str]] = {}
    for each in operations:
        at, session = _ended(each), each.session_id
        if each.outcome != "ok" or session is None:
            continue
        # Where the backend has no ids, a session has one sandbox.
        known = sandbox_of.get(session, (each.provider, session))
        key = known if each.sandbox_id is None else (each.provider, each.sandbox_id)
        if each.operation in OPENING:
            if known != key and known in found and not found[known].deleted:
                found[known].deleted, found[known].ends = True, at  # It was lost, and replaced.
            sandbox_of[session] = key
            sandbox = found.setdefault(
                key,
                _Sandbox(
                    provider=each.provider, workflow_type=run.workflow_type, begins=at, ends=at
                ),
            )
            if not sandbox.deleted:
                sandbox.ends = max(sandbox.ends, run.close_time or now)
        elif each.operation == ops.DELETE_SESSION.name and key in found:
            found[key].deleted, found[key].ends = True, at


def _ended(operation: Operation) -> datetime:
    scheduled = datetime.fromisoformat(operation.scheduled_at)
    return scheduled + timedelta(seconds=(operation.waited_s or 0) + (operation.took_s or 0))


def _totals(sandboxes: Iterable[_Sandbox], *, begin: datetime) -> list[_Total]:
    totals: dict[tuple[str, str], _Total] = {}
    for each in sandboxes:
        if each.ends < begin:
            continue
        key = (each.workflow_type, each.provider)
        total = totals.setdefault(key, _Total(workflow_type=key[0], provider=key[1]))
        total.sandboxes += 1
        total.seconds += (each.ends - max(each.begins, begin)).total_seconds()
        total.not_deleted += not each.deleted
    return sorted(totals.values(), key=lambda each: -each.seconds)


def _print(totals: list[_Total]) -> None:
    if not totals:
        typer.echo("No workflow of this namespace has used a sandbox in this time.")
        return
    numbers = ("SANDBOXES", "SECONDS", "NOT DELETED")
    table = new_table("WORKFLOW TYPE", "PROVIDER", *numbers, right=numbers)
    for each in totals:
        counts = (f"{each.sandboxes:,}", f"{each.seconds:,.1f}", f"{each.not_deleted:,}")
        table.add_row(*map(Text, (each.workflow_type, each.provider, *counts)))
    print_table(table)
