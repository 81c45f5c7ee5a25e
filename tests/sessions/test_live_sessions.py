"""Agents run in an open session, with the OpenAI plugin and without."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from agents.sandbox import Manifest
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxSession,
    UnixLocalSandboxSessionState,
)
from agents.sandbox.snapshot import NoopSnapshot
from scripts import Scripts
from support import running_worker, scheduled_activities, unique
from temporalio.client import Client
from temporalio.worker import Replayer
from workflows.live import ANSWERS, SCENES, Live

from sandbox_core.errors import InvalidRequest
from sandbox_core.worker import SandboxPlugin
from sandbox_core.workflow import with_session

if TYPE_CHECKING:
    from temporalio.openai_agents import OpenAIAgentsPlugin

EXPECTED = {
    "several_runs": ["seed\n", "seed\nwritten\n"],
    "at_once": ["seed\n", "seed\n", "one.txt", "seed.txt", "two.txt"],
    "as_tool": ["it said seed\nwritten"],
    "handoff": ["seed\nwritten\n"],
    "skills": ["Say hello.\nseed\n"],
}
_HAS_PLUGIN = importlib.util.find_spec("temporalio.openai_agents") is not None
_WITH_PLUGIN = pytest.param(
    True,
    id="with the OpenAI plugin",
    marks=pytest.mark.skipif(
        not _HAS_PLUGIN, reason="temporalio-openai-agents does not take this openai-agents"
    ),
)


def _openai_plugin() -> OpenAIAgentsPlugin:
    from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin

    return OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(start_to_close_timeout=timedelta(minutes=1)),
        model_provider=Scripts(ANSWERS),
    )


class TestAgents:
    """What agents do in a live session is done in that session, which stays open."""

    @pytest.mark.parametrize("plugin", [pytest.param(False, id="without a plugin"), _WITH_PLUGIN])
    @pytest.mark.parametrize("scene", SCENES)
    async def test_find_and_leave_their_files(
        self, temporal_client: Client, scene: str, plugin: bool
    ) -> None:
        plugins: list[OpenAIAgentsPlugin | SandboxPlugin] = [SandboxPlugin()]
        plugins += [_openai_plugin()] if plugin else []
        config = temporal_client.config()
        config["plugins"] = plugins
        client = Client(**config)
        async with running_worker(client, Live, plugins=()) as queue:
            handle = await client.start_workflow(
                Live.run,
                args=[scene, plugin],
                id=unique("live"),
                task_queue=queue,
                execution_timeout=timedelta(seconds=60),
            )
            said = await handle.result()
            history = await handle.fetch_history()
        replayed = await Replayer(workflows=[Live], plugins=plugins).replay_workflow(
            history, raise_on_replay_failure=False
        )

        assert [*EXPECTED[scene], "open\n"] == said
        assert replayed.replay_failure is None
        performed = scheduled_activities(history)
        assert 1 == performed.count("local-sandbox_create_session")
        assert 1 == performed.count("local-sandbox_delete_session")
        assert 1 == performed.count("local-sandbox_start")


def test_a_session_of_another_client_is_refused() -> None:
    state = UnixLocalSandboxSessionState(manifest=Manifest(), snapshot=NoopSnapshot(id="none"))

    with pytest.raises(InvalidRequest, match="not a UnixLocalSandboxSession"):
        with_session(UnixLocalSandboxSession(state=state))
