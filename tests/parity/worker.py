"""A worker that runs agents with scripted models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from agents import ModelProvider
from support import running_worker, unique
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.common import RetryPolicy
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from temporalio.worker import Plugin, Replayer
from workflows.parity import Confine, Converse, ConverseFrom, ConverseUntilApproval, ScriptedModels

from sandbox_core.worker import SandboxPlugin

_WORKFLOWS = [Converse, ConverseUntilApproval, ConverseFrom, Confine]


@dataclass(frozen=True, kw_only=True)
class AgentWorker:
    """A running worker: the client to start workflows with, its queue and its plugins."""

    client: Client
    queue: str
    plugins: list[Plugin]

    async def start(
        self,
        run: Callable[..., Awaitable[Any]],
        *arguments: object,
    ) -> WorkflowHandle[Any, Any]:
        """Start a workflow that does not outlive the test's patience."""
        return await self.client.start_workflow(
            run,
            args=arguments,
            id=unique("parity"),
            task_queue=self.queue,
            execution_timeout=timedelta(seconds=60),
        )

    async def run(self, run: Callable[..., Awaitable[Any]], *arguments: object) -> Any:  # noqa: ANN401 - whatever it returns
        """Run a workflow to its end."""
        return await (await self.start(run, *arguments)).result()

    async def replay(self, history: WorkflowHistory) -> Exception | None:
        """Replay a history with the same plugins, and return why it does not."""
        (failure,) = await self.replay_all([history])
        return failure

    async def replay_all(self, histories: Sequence[WorkflowHistory]) -> list[Exception | None]:
        """Replay histories, and return of each why it does not, or None."""

        async def each() -> AsyncIterator[WorkflowHistory]:
            for history in histories:
                yield history

        replayer = Replayer(workflows=_WORKFLOWS, plugins=self.plugins)
        failures = (
            await replayer.replay_workflows(each(), raise_on_replay_failure=False)
        ).replay_failures
        return [failures.get(history.run_id) for history in histories]


@asynccontextmanager
async def agent_worker(
    client: Client,
    *,
    max_cached_workflows: int = 1000,
    local_sources: Sequence[Path] = (),
    models: ModelProvider | None = None,
) -> AsyncIterator[AgentWorker]:
    """Run a worker for the workflows of the parity tests."""
    agents = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(
            start_to_close_timeout=timedelta(minutes=1),
            # A script that has no answer has none the next time either.
            retry_policy=RetryPolicy(maximum_attempts=1),
            streaming_topic="events",
        ),
        model_provider=models or ScriptedModels(),
    )
    config = client.config()
    sandboxes = SandboxPlugin(local_sources=local_sources)
    config["plugins"] = [agents, sandboxes]
    connected = Client(**config)
    async with running_worker(
        connected,
        *_WORKFLOWS,
        plugins=(),
        max_cached_workflows=max_cached_workflows,
    ) as queue:
        yield AgentWorker(client=connected, queue=queue, plugins=[agents, sandboxes])
