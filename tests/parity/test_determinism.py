"""A replayed workflow tells the model the same again."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from parity.cases import write_skills
from parity.worker import agent_worker
from temporalio.client import Client, WorkflowHistory
from workflows.parity import Converse, Request


async def _inputs(client: Client, history: WorkflowHistory, prefix: str) -> list[dict[str, Any]]:
    """Return the first argument of each activity whose type begins so, in order."""
    return [
        (await client.data_converter.decode(scheduled.input.payloads[:1], [dict[str, Any]]))[0]
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
        for scheduled in [event.activity_task_scheduled_event_attributes]
        if scheduled.activity_type.name.startswith(prefix)
    ]


class TestConversation:
    """What the model is told when the workflow is replayed for each of its tasks."""

    @pytest.mark.parametrize(
        "case",
        ["commands", "terminal", "patch", "cwd", "skills in the agent", "two turns", "streamed"],
    )
    async def test_is_the_one_that_was_sent(
        self, temporal_client: Client, tmp_path: Path, case: str
    ) -> None:
        """Chunk ids and wall times included: each input continues the one before it."""
        async with agent_worker(temporal_client, max_cached_workflows=0) as worker:
            handle = await worker.start(Converse.run, Request(case=case, directory=str(tmp_path)))
            transcript = await handle.result()
            inputs = await _inputs(
                worker.client, await handle.fetch_history(), "invoke_model_activity"
            )

        conversations = [each["input"] for each in inputs]
        assert 2 <= len(conversations)
        for before, after in pairwise(conversations):
            assert before == after[: len(before)]
        assert conversations[-1] == transcript["conversation"][: len(conversations[-1])]

    async def test_has_the_same_settings_each_time(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """Instructions, tools and model settings, a cache key among them, do not change."""
        async with agent_worker(temporal_client, max_cached_workflows=0) as worker:
            handle = await worker.start(
                Converse.run, Request(case="commands", directory=str(tmp_path))
            )
            await handle.result()
            inputs = await _inputs(
                worker.client, await handle.fetch_history(), "invoke_model_activity"
            )

        told = [{**each, "input": None} for each in inputs]
        assert [told[0]] * len(told) == told


class TestHostOfTheWorkflow:
    """What the history holds is enough: a replay needs nothing of the host's disk."""

    @pytest.mark.parametrize("case", ["skills from a local directory", "lazy skills"])
    async def test_is_not_asked_for_files(
        self, temporal_client: Client, tmp_path: Path, case: str
    ) -> None:
        """The directory is gone when the history is replayed."""
        skills = write_skills(tmp_path)
        async with agent_worker(temporal_client, local_sources=[tmp_path]) as worker:
            handle = await worker.start(Converse.run, Request(case=case, directory=str(tmp_path)))
            transcript = await handle.result()
            shutil.rmtree(skills)
            failure = await worker.replay(await handle.fetch_history())

        assert transcript["raised"] is None
        assert failure is None


class TestMemory:
    """The SDK names a run by itself where the application does not."""

    # A workflow that is dropped in the middle of the SDK's `gather` leaves its coroutines behind.
    @pytest.mark.filterwarnings("ignore:coroutine 'SandboxSession.mkdir' was never awaited")
    async def test_keeps_the_name_of_a_run(self, temporal_client: Client, tmp_path: Path) -> None:
        """What is written before a replay is looked for under the same name after it."""
        async with agent_worker(temporal_client, max_cached_workflows=0) as worker:
            handle = await worker.start(
                Converse.run, Request(case="memory of an unnamed run", directory=str(tmp_path))
            )
            await handle.result()
            history = await handle.fetch_history()
            requests = await _inputs(worker.client, history, "local-sandbox_")

        paths = {str(request.get("path")) for request in requests}
        assert 1 == len({path for path in paths if path.endswith(".jsonl")})
