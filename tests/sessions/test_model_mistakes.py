"""A model's mistakes end the run or are reported to the model, and are never retried forever."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest
from scripts import Scripts
from support import running_worker, unique
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from workflows.mistakes import MISTAKES, Mistakes, making

from sandbox_core.worker import SandboxPlugin


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_it_ends_the_run_or_is_told_to_the_model(
    temporal_client: Client, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within one workflow task, with the error that the SDK has without Temporal."""
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")
    agents = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=RetryPolicy(maximum_attempts=1),
        ),
        model_provider=Scripts({name: making(each) for name, each in MISTAKES.items()}),
    )
    config = temporal_client.config()
    config["plugins"] = [agents, SandboxPlugin()]
    async with running_worker(Client(**config), Mistakes, plugins=()) as queue:
        handle = await temporal_client.start_workflow(
            Mistakes.run,
            mistake,
            id=unique("mistakes"),
            task_queue=queue,
            execution_timeout=timedelta(seconds=30),
        )
        with suppress(WorkflowFailureError):
            await handle.result()
        history = await handle.fetch_history()
        closed = await handle.describe()

    failed = [e for e in history.events if e.HasField("workflow_task_failed_event_attributes")]
    assert [] == failed
    assert closed.status in (WorkflowExecutionStatus.COMPLETED, WorkflowExecutionStatus.FAILED)
