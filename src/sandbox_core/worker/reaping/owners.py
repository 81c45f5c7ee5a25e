"""Determines whether the workflow that owns a sandbox is still open.

A label names one run. The workflow may have continued in another run since: it was continued as
new, retried, started again by its cron schedule, or reset. All these runs have the same first run,
which the server records in each of them. At most one run of a workflow id is open.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflow.v1 import WorkflowExecutionInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

# A workflow with any other status is open: running, paused, or a status newer than this code.
_CLOSED: dict[int, str] = {
    WorkflowExecutionStatus.COMPLETED: "completed",
    WorkflowExecutionStatus.FAILED: "failed",
    WorkflowExecutionStatus.CANCELED: "cancelled",
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.CONTINUED_AS_NEW: "continued as new",
    WorkflowExecutionStatus.TIMED_OUT: "timed out",
}


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The owner of a sandbox: a workflow that is open, or how and when it closed."""

    is_open: bool = False
    state: str = ""
    """How it closed, or ``not found``."""

    closed: datetime | None = None
    """When it closed; None if the server does not know."""

    doubt: str = ""
    """Why it is unknown whether it is open; empty if it is known."""


async def owner_of(client: Client, workflow_id: str, run_id: str) -> Owner:
    """Ask the server about the workflow of this run.

    Raises:
        RPCError: The server did not answer, which does not mean "not found".
    """
    labelled = await _describe(client, workflow_id, run_id)
    if labelled is not None and _is_open(labelled):
        return Owner(is_open=True)
    current = await _describe(client, workflow_id, "")
    # A run that the server no longer retains may have been the workflow's first or a later one.
    first_run = run_id if labelled is None else labelled.first_run_id
    same = current is not None and current.first_run_id == first_run
    if current is not None and _is_open(current):
        if same:
            return Owner(is_open=True)
        if labelled is None or not (labelled.first_run_id and current.first_run_id):
            return Owner(
                doubt=f"the server no longer has run {run_id} of its workflow, so it is unknown "
                f"whether the open run {current.execution.run_id} is a later one of the same "
                f"workflow"
            )
    if labelled is None:
        return Owner(state="not found", closed=None if current is None else _closed(current))
    last = current if current is not None and same else labelled
    return Owner(state=_CLOSED[last.status], closed=_closed(last))


async def _describe(client: Client, workflow_id: str, run_id: str) -> WorkflowExecutionInfo | None:
    """Return the server's record of a run; of the current run if `run_id` is empty."""
    execution = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
    request = DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=execution)
    try:
        described = await client.workflow_service.describe_workflow_execution(request, retry=True)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    return described.workflow_execution_info


def _is_open(info: WorkflowExecutionInfo) -> bool:
    return info.status not in _CLOSED


def _closed(info: WorkflowExecutionInfo) -> datetime | None:
    if not info.HasField("close_time"):
        return None
    return info.close_time.ToDatetime(tzinfo=timezone.utc)
