"""A deleted session stays deleted, and its workflow knows that."""

from __future__ import annotations

import pytest
from support import running_worker, scheduled_activities, unique
from temporalio.client import Client
from temporalio.worker import Replayer
from workflows.steps import GoesOnAfterDelete, Outcome, Plan, Step

from sandbox_core.worker import SandboxPlugin


async def test_no_operation_reaches_a_session_that_was_deleted(
    temporal_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through none of its handles: it would be answered from a new, empty sandbox."""
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")
    steps = [Step("exec", ["ls"]), Step("ls", ["."]), Step("read", ["file"]), Step("start")]
    steps += [Step("persist_workspace"), Step("running")]
    async with running_worker(temporal_client, GoesOnAfterDelete) as queue:
        handle = await temporal_client.start_workflow(
            GoesOnAfterDelete.run, Plan(steps), id=unique("deleted"), task_queue=queue
        )
        outcomes = await handle.result()
        history = await handle.fetch_history()

    *refused, running, other_running = outcomes
    assert {"SandboxLost"} == {outcome.error for outcome in refused}
    assert "was deleted by this workflow, so exec is not possible" in refused[0].text
    assert [Outcome(text="False")] * 2 == [running, other_running]
    scheduled = [name.partition("_")[2] for name in scheduled_activities(history)]
    assert {"create_session", "start", "resume_session", "delete_session"} == set(scheduled)
    await Replayer(workflows=[GoesOnAfterDelete], plugins=[SandboxPlugin()]).replay_workflow(
        history
    )
