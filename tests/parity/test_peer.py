"""Workflows with the OpenAI plugin's own sandboxes are unchanged in a worker with sandbox-core."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from scripts import Scripts, commands_then_report
from support import running_worker, unique
from temporalio.client import Client
from temporalio.openai_agents import (
    ModelActivityParameters,
    OpenAIAgentsPlugin,
    SandboxClientProvider,
)
from workflows.peers import OfOurs, OfThePeer, OutsideOfOurs

from sandbox_core.worker import SandboxPlugin


async def _run(client: Client, workflow: Any) -> Any:  # noqa: ANN401 - whatever it returns
    agents = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(start_to_close_timeout=timedelta(minutes=1)),
        model_provider=Scripts({"agent": commands_then_report("echo hello")}),
        sandbox_clients=[SandboxClientProvider("peer", UnixLocalSandboxClient())],
    )
    config = client.config()
    config["plugins"] = [agents, SandboxPlugin()]
    both = Client(**config)
    workflows = (OfThePeer, OfOurs, OutsideOfOurs)
    async with running_worker(both, *workflows, plugins=()) as queue:
        return await both.execute_workflow(
            workflow.run,
            id=unique("peer"),
            task_queue=queue,
            execution_timeout=timedelta(seconds=30),
        )


class TestDefaultSnapshot:
    """Where the workspace of a run goes that names no place."""

    async def test_is_the_sdks_with_the_plugins_own_client(self, temporal_client: Client) -> None:
        """A provider of the peer has no store of ours, and could not even start with one."""
        assert {"said": "hello\n", "snapshot": "local"} == await _run(temporal_client, OfThePeer)

    async def test_is_the_store_with_our_client(self, temporal_client: Client) -> None:
        assert {"said": "hello\n", "snapshot": "remote"} == await _run(temporal_client, OfOurs)


async def test_what_is_replaced_asks_the_workflow_for_nothing(temporal_client: Client) -> None:
    """One random number more would change what a peer's recorded workflow decides."""
    told = await _run(temporal_client, OutsideOfOurs)

    assert {True} == set(told.values()), told
