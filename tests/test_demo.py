"""The demo's workflow, where it does not reach its end."""

from __future__ import annotations

import pytest
from record_histories import agents_plugin
from support import completed_activities, running_worker, scheduled_activities, unique, until
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import CancelledError

from sandbox_core.cli.demo import project_files
from sandbox_core.demo.workflow import RepairRequest, RepairWorkflow
from sandbox_core.worker import SandboxPlugin

# The agent has the tests run twice, and the workflow once more.
WAITS_IN_THE_THIRD_RUN = """\
import time
with open("runs", "a+") as runs:
    runs.write("run\\n")
    runs.seek(0)
    if len(runs.readlines()) == 3:
        time.sleep(120)
"""


async def test_it_ends_as_cancelled_while_it_looks_at_what_the_agent_has_done(
    temporal_client: Client,
) -> None:
    """The sandbox is deleted, and nothing of the workflow is tried again."""
    config = temporal_client.config()
    config["plugins"] = [agents_plugin(), SandboxPlugin()]
    client = Client(**config)
    files = {**project_files(), "tests/test_waiting.py": WAITS_IN_THE_THIRD_RUN}
    async with running_worker(client, RepairWorkflow, plugins=()) as queue:
        handle = await client.start_workflow(
            RepairWorkflow.run,
            RepairRequest(provider="local", files=files),
            id=unique("demo"),
            task_queue=queue,
        )

        async def runs_the_tests_itself() -> bool:
            return "local-sandbox_exec" in scheduled_activities(await handle.fetch_history())

        await until(runs_the_tests_itself)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()

    assert isinstance(failed.value.cause, CancelledError)
    history = await handle.fetch_history()
    assert not any(e.HasField("workflow_task_failed_event_attributes") for e in history.events)
    assert "local-sandbox_delete_session" == completed_activities(history)[-1]
