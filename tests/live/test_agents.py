"""The shell tool of an agent is followed without code of its own."""

from __future__ import annotations

from datetime import timedelta

from live.following import followed, seen, with_plugins
from scripts import Scripts, commands_then_report
from support import running_worker, unique
from temporalio.client import Client
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from workflows.live_output import AskLive

from sandbox_core.worker import SandboxPlugin

SLOW = "echo begun; sleep 2; echo oh >&2; echo done; exit 3"


async def test_what_an_agent_runs_is_published(temporal_client: Client) -> None:
    agents = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(start_to_close_timeout=timedelta(minutes=1)),
        model_provider=Scripts({"slow": commands_then_report(SLOW, "echo short")}),
    )
    client = with_plugins(temporal_client, agents, SandboxPlugin())
    async with running_worker(client, AskLive, plugins=()) as queue:
        await client.execute_workflow(
            AskLive.run, "slow", id=(name := unique("ask")), task_queue=queue
        )

        slow, short = seen(await followed(client, name))

    assert ({"output": b"begun\noh\ndone\n"}, 3) == (slow.streams, slow.end)
    assert slow.pieces > 1
    assert SLOW == slow.command
    assert ({"output": b"short\n"}, 0) == (short.streams, short.end)
