"""Finds a sandbox, the workflow that owns it, and the worker that holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sandbox_core.cli.access.standalone import Unanswered, perform
from sandbox_core.cli.connection import connect_with_storage, server_errors
from sandbox_core.cli.history import Operation, operations_of
from sandbox_core.cli.sandboxes import Listed, find_sandbox
from sandbox_core.errors import AccessDenied, SandboxCoreError, SandboxLost
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.worker.sessions import labels as names


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a sandbox is looked for, and how what the workers stored is read."""

    providers: Sequence[str] = ()
    """Only at these; empty for all."""

    storage: str | None = None
    """The workers' storage; None for ``SANDBOX_CORE_STORAGE``, or the default one."""

    address: str | None = None
    """The Temporal server; None for Temporal's own configuration."""

    namespace: str | None = None
    """The namespace; None for Temporal's own configuration."""

    async def find(self, sandbox_id: str) -> tuple[Client, Listed]:
        """Return the sandbox whose id is this or begins with it, and a client of its namespace.

        Raises:
            InvalidRequest: It does not exist, or is ambiguous.
            ProviderError: A named provider cannot be used for this.
            ServerUnavailable: The server cannot be reached, or refuses.
            StorageError: `storage` is not a storage URL.
        """
        client = await connect_with_storage(self.address, self.namespace, self.storage)
        _, sandbox = await find_sandbox(sandbox_id, self.providers, client)
        return client, sandbox


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The worker that holds a sandbox."""

    queue: str
    """Its own queue."""

    session: m.SessionRef
    inspected: m.InspectResponse


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The holder of a sandbox, or why each of the workers that may hold it is not the one."""

    holder: Holder | None
    others: dict[str, str]
    """Why it was none of the workers that were asked, by queue."""


async def history_of(client: Client, sandbox: Listed) -> list[Operation]:
    """Return the operations of the owner's run in this sandbox, as far as they can be read.

    Raises:
        ServerUnavailable: The server does not answer, or refuses.
    """
    handle = client.get_workflow_handle(sandbox.workflow_id, run_id=sandbox.run_id)
    with server_errors(client):
        try:
            found = [each async for each in operations_of(client, handle)]
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return []  # The server no longer retains it.
    opened = {each.session_id for each in found if each.sandbox_id == sandbox.sandbox_id}
    return [each for each in found if each.session_id in opened - {None}]


def queues_of(sandbox: Listed, operations: Sequence[Operation] = ()) -> list[str]:
    """Return the own queues of the workers that may hold a sandbox, the likeliest first.

    The last worker that opened its session holds it. A label names the one that created it.
    """
    opened = [
        each.worker_queue
        for each in reversed(operations)
        if each.worker_queue is not None and each.sandbox_id == sandbox.sandbox_id
    ]
    created = sandbox.labels.get(names.WORKER)
    return list(dict.fromkeys([*opened, *([created] if created else [])]))


async def ask_workers(client: Client, sandbox: Listed, queues: Iterable[str]) -> Asked:
    """Ask the workers of `queues`, one after another, until one holds the sandbox.

    Raises:
        AccessDenied: A worker does not let the caller use the sandbox.
        ServerUnavailable: The server does not answer, refuses, or has no standalone activities.
    """
    others: dict[str, str] = {}
    for queue in queues:
        inspected = await _ask_worker(client, sandbox, queue)
        if isinstance(inspected, str):
            others[queue] = inspected
        elif inspected.session is None:
            others[queue] = "does not hold it"
        else:
            holder = Holder(queue=queue, session=inspected.session, inspected=inspected)
            return Asked(holder=holder, others=others)
    return Asked(holder=None, others=others)


async def _ask_worker(client: Client, sandbox: Listed, queue: str) -> m.InspectResponse | str:
    """Return a worker's answer, or why there is none."""
    request = m.InspectRequest(sandbox_id=sandbox.sandbox_id)
    try:
        return await perform(client, sandbox.provider, ops.INSPECT, request, queue=queue)
    except Unanswered:
        return "does not answer"
    except AccessDenied:
        raise  # What it holds is not for this caller.
    except SandboxCoreError as error:
        return f"fails: {error.message}"


async def find_holder(client: Client, sandbox: Listed) -> Holder:
    """Return the worker that holds a sandbox.

    The history is read only if the worker that created the sandbox does not hold it.

    Raises:
        SandboxLost: No worker holds it, or none that does could be found.
        ServerUnavailable: The server does not answer, refuses, or has no standalone activities.
    """
    asked = await ask_workers(client, sandbox, queues_of(sandbox))
    if asked.holder is not None:
        return asked.holder
    queues = queues_of(sandbox, await history_of(client, sandbox))
    again = await ask_workers(client, sandbox, [q for q in queues if q not in asked.others])
    if again.holder is not None:
        return again.holder
    others = {**asked.others, **again.others}
    said = "".join(f" The worker of {queue} {why}." for queue, why in others.items())
    raise SandboxLost(
        f"no worker holds sandbox {sandbox.sandbox_id!r} at present.{said} Its worker was "
        f"replaced, or it has not been used for an hour. The next operation of workflow "
        f"{sandbox.workflow_id!r} opens it again."
    )
