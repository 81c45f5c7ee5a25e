"""Sandboxes of open, closed or deleted workflows, and a reaper that looks at them."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from local_backend import LocalProvider
from support import running_worker, unique, until
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    ResetWorkflowExecutionRequest,
)
from temporalio.client import (
    Client,
    WorkflowContinuedAsNewError,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import RetryPolicy
from temporalio.service import RPCError, RPCStatusCode
from workflows.owners import OwnsSandbox

from sandbox_core.wire.messages import ReapRequest, ReapResponse
from sandbox_core.worker.reaping.reaper import as_reapable, reap
from sandbox_core.worker.sessions import labels as names
from sandbox_core.worker.sessions.labels import Namespace

Handle = WorkflowHandle[OwnsSandbox, str]


@pytest.fixture
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sandboxes of other tests, whose workflows may also be closed, are elsewhere."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@dataclass
class Owned:
    """A workflow, and the directory of its sandbox."""

    handle: Handle
    root: Path


@dataclass
class Here:
    """One namespace: its workflows, and the reaping of its sandboxes."""

    client: Client
    queue: str

    async def owned(
        self,
        workflow_id: str | None = None,
        *,
        run_timeout: timedelta | None = None,
        retry_policy: RetryPolicy | None = None,
    ) -> Owned:
        """Start a workflow and return it when it has its sandbox."""
        handle = await self.client.start_workflow(
            OwnsSandbox.run,
            args=["local"],
            id=workflow_id or unique("owner"),
            task_queue=self.queue,
            run_timeout=run_timeout,
            retry_policy=retry_policy,
        )
        return Owned(handle, await self.root_of(handle))

    async def root_of(self, handle: Handle) -> Path:
        current = self.client.get_workflow_handle(handle.id)
        state = await current.execute_update(OwnsSandbox.sandbox_state)
        return Path(state["manifest"]["root"])

    async def reap(
        self,
        *,
        delete: bool = True,
        older_than_s: float = 0,
        provider: LocalProvider | None = None,
        deleted_within: timedelta = timedelta(seconds=30),
    ) -> ReapResponse:
        used = provider or LocalProvider()
        reapable = as_reapable(used)
        assert reapable is not None
        return await reap(
            reapable,
            used.create_client(),  # type: ignore[arg-type]  # it takes its own options
            self.client,
            await Namespace.of(self.client),
            ReapRequest(older_than_s=older_than_s, delete=delete),
            deleted_within=deleted_within,
        )

    async def make(self, labels: Mapping[str, str]) -> Path:
        """Make a sandbox with these labels in this namespace."""
        provider = LocalProvider()
        here = await Namespace.of(self.client)
        labelled = {names.NAMESPACE_ID: here.id, names.NAMESPACE: here.name, **labels}
        client = provider.labelled(provider.create_client(), labelled)
        return Path((await client.create()).state.manifest.root)


@pytest.fixture
async def here(temporal_client: Client, own_tmp: Path) -> AsyncIterator[Here]:
    async with running_worker(temporal_client, OwnsSandbox) as queue:
        yield Here(temporal_client, queue)


async def closed(handle: Handle) -> None:
    """Return when the first run is closed."""
    with suppress(WorkflowFailureError, WorkflowContinuedAsNewError):
        await handle.result(follow_runs=False)


async def reset(client: Client, handle: Handle) -> str:
    """Reset a workflow to its last task, and return the new run's id."""
    history = await handle.fetch_history()
    tasks = [
        event.event_id
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    answer = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id),
            workflow_task_finish_event_id=tasks[-1],
            reason="a test",
            request_id=str(uuid.uuid4()),
        )
    )
    return answer.run_id


async def delete_run(client: Client, workflow_id: str, run_id: str) -> None:
    """Delete a run, and return when the server does not know it any more."""
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        )
    )
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)

    async def is_unknown() -> bool:
        try:
            await handle.describe()
        except RPCError as error:
            return error.status is RPCStatusCode.NOT_FOUND
        return False

    await until(is_unknown)


def outcomes(answer: ReapResponse) -> list[tuple[str, str, str]]:
    return [(found.sandbox_id, found.owner, found.outcome) for found in answer.sandboxes]


LIVING = ReapResponse(living=1)
