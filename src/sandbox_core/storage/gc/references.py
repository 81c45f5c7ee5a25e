"""Finds the references to stored objects on a Temporal server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import cache
from typing import TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.sdk.v1.external_storage_pb2 import ExternalStorageReference
from temporalio.api.workflowservice.v1 import (
    DescribeActivityExecutionRequest,
    DescribeNexusOperationExecutionRequest,
    DescribeScheduleRequest,
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
)
from temporalio.client import (
    ActivityExecution,
    Client,
    NexusOperationExecution,
    ScheduleListDescription,
    WorkflowExecutionStatus,
)
from temporalio.client import WorkflowExecution as ListedWorkflow
from temporalio.service import RPCError, RPCStatusCode

from sandbox_core.errors import StorageError

_T = TypeVar("_T")
_MessageT = TypeVar("_MessageT", bound=Message)

# Temporal lists its own workflows separately; a schedule's has the last result of what it started.
_WORKFLOW_QUERIES = ("", "TemporalNamespaceDivision IS NOT NULL")
_AT_ONCE = 8

_DIGEST = re.compile(rb"[0-9a-f]{64}")
_SNAPSHOT_ID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

# The encodings of Temporal's payload converters; a codec marks its output with another one.
_READABLE = frozenset(
    {
        b"binary/null",
        b"binary/plain",
        b"binary/protobuf",
        b"json/external-storage-reference",
        b"json/plain",
        b"json/protobuf",
    }
)
# Temporal's SDK is going to mark references that passed through a codec with this.
_MARKER = "__temporal_external_storage_reference"
_REFERENCE_TYPE = ExternalStorageReference.DESCRIPTOR.full_name.encode()


class References:
    """The SHA-256 digests of stored payloads, and the ids, or possible ids, of snapshots.

    They are searched for in the bytes of whole messages, which contain the data of payloads
    verbatim, wherever it is: in an input, a result, a memo, a header, a failure, a heartbeat, the
    state of Temporal's own workflows, or a field that only a newer server knows. Other text of the
    same form is found too, and at worst keeps an object that is not needed.
    """

    def __init__(self) -> None:
        self.digests: set[str] = set()
        self.snapshot_ids: set[str] = set()
        self.unreadable: set[str] = set()
        """Encodings of payloads in which a snapshot's id cannot be found."""

    def add(self, message: Message, source: str) -> None:
        """Add the references in a message of the server or in a stored payload.

        Raises:
            StorageError: A reference cannot be read.
        """
        content = message.SerializeToString()
        self.digests.update(found.decode() for found in _DIGEST.findall(content))
        self.snapshot_ids.update(found.decode() for found in _SNAPSHOT_ID.findall(content))
        for payload in _payloads(message):
            encoding = payload.metadata.get("encoding", b"")
            if encoding not in _READABLE:
                self.unreadable.add(encoding.decode(errors="replace") or "unknown")
            if _is_reference(payload) and not _is_json(payload.data):
                raise StorageError(
                    f"{source} refers to a stored payload, and a payload codec has encoded the "
                    f"reference, so the objects in use are unknown. Nothing was deleted."
                )


async def find_references(clients: Iterable[Client]) -> References:
    """Return the references of the workflows, schedules and standalone activities of namespaces.

    Everything that the server retains counts, open or closed: a closed workflow can still be read,
    reset and replayed. The clients must have no external storage, which would hide references.

    Raises:
        StorageError: A reference cannot be read.
        RPCError: The server does not answer, or refuses.
    """
    references = References()
    for client in clients:
        reader = _Reader(client, references)
        # Before the workflows: if a schedule is deleted meanwhile, what it started is listed.
        schedules = await client.list_schedules(page_size=1000)
        await each([found async for found in schedules], reader.schedule, at_once=_AT_ONCE)
        activities = await _all(client.list_activities(""))
        await each(activities, reader.activity, at_once=_AT_ONCE)
        operations = await _all(client.list_nexus_operations(""))
        await each(operations, reader.nexus_operation, at_once=_AT_ONCE)
        for query in _WORKFLOW_QUERIES:
            workflows = [found async for found in client.list_workflows(query)]
            await each(workflows, reader.workflow, at_once=_AT_ONCE)
    return references


async def each(items: Iterable[_T], work: Callable[[_T], Awaitable[None]], *, at_once: int) -> None:
    """Do `work` for each of `items`, `at_once` at a time; the first error ends all."""
    remaining = iter(items)

    async def worker() -> None:
        for item in remaining:
            await work(item)

    workers = [asyncio.ensure_future(worker()) for _ in range(at_once)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


class _Reader:
    """Reads everything in one namespace; whatever disappears meanwhile needs nothing."""

    def __init__(self, client: Client, references: References) -> None:
        self._namespace = client.namespace
        self._service = client.workflow_service
        self._references = references

    async def schedule(self, listed: ScheduleListDescription) -> None:
        request = DescribeScheduleRequest(namespace=self._namespace, schedule_id=listed.id)
        answer = self._service.describe_schedule(request, retry=True)
        await self._add(answer, f"schedule {listed.id}")

    async def activity(self, listed: ActivityExecution) -> None:
        request = DescribeActivityExecutionRequest(
            namespace=self._namespace,
            activity_id=listed.activity_id,
            run_id=listed.activity_run_id or "",
            include_input=True,
            include_outcome=True,
            include_heartbeat_details=True,
            include_last_failure=True,
        )
        answer = self._service.describe_activity_execution(request, retry=True)
        await self._add(answer, f"activity {listed.activity_id}")

    async def nexus_operation(self, listed: NexusOperationExecution) -> None:
        request = DescribeNexusOperationExecutionRequest(
            namespace=self._namespace,
            operation_id=listed.operation_id,
            run_id=listed.run_id or "",
            include_input=True,
            include_outcome=True,
        )
        answer = self._service.describe_nexus_operation_execution(request, retry=True)
        await self._add(answer, f"Nexus operation {listed.operation_id}")

    async def workflow(self, listed: ListedWorkflow) -> None:
        source = f"workflow {listed.id}"
        execution = WorkflowExecution(workflow_id=listed.id, run_id=listed.run_id)
        if listed.status is WorkflowExecutionStatus.RUNNING:
            # Before the history: when an activity ends, its heartbeat's details move there.
            describe = DescribeWorkflowExecutionRequest(
                namespace=self._namespace, execution=execution
            )
            await self._add(self._service.describe_workflow_execution(describe, retry=True), source)
        request = GetWorkflowExecutionHistoryRequest(
            namespace=self._namespace, execution=execution, skip_archival=True
        )
        while True:
            answer = self._service.get_workflow_execution_history(request, retry=True)
            page = await self._add(answer, source)
            if page is None or not page.next_page_token:
                break
            request.next_page_token = page.next_page_token

    async def _add(self, answer: Awaitable[_MessageT], source: str) -> _MessageT | None:
        """Add the references in an answer of the server and return it; None if it is not found."""
        try:
            message = await answer
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None
        self._references.add(message, source)
        return message


async def _all(listed: AsyncIterator[_T]) -> list[_T]:
    """Return the listed executions; none if the server does not support this kind."""
    try:
        return [found async for found in listed]
    except RPCError as error:
        if error.status is not RPCStatusCode.UNIMPLEMENTED:
            raise
        return []


def _is_reference(payload: Payload) -> bool:
    return _MARKER in payload.metadata or (
        payload.metadata.get("encoding") == b"json/protobuf"
        and payload.metadata.get("messageType") == _REFERENCE_TYPE
    )


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _payloads(message: Message) -> Iterator[Payload]:
    """Yield every payload in a message."""
    if isinstance(message, Payload):
        yield message
        return
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None or not _may_hold_payloads(kind):
            continue
        if isinstance(value, Message):
            yield from _payloads(value)
        else:
            for inner in value.values() if kind.GetOptions().map_entry else value:
                yield from _payloads(inner)


@cache
def _may_hold_payloads(kind: Descriptor) -> bool:
    """Return whether a message of this kind can contain a payload, at any depth."""
    seen: set[str] = set()
    remaining = [kind]
    while remaining:
        found = remaining.pop()
        if found.full_name == Payload.DESCRIPTOR.full_name:
            return True
        if found.full_name not in seen:
            seen.add(found.full_name)
            remaining += [field.message_type for field in found.fields if field.message_type]
    return False
