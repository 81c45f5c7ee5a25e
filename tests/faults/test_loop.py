"""What blocks the event loop of a worker, and what must not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
    UnixLocalSandboxSession,
)
from support import attempts, running_worker, unique
from temporalio.client import Client
from workflows.steps import Outcome, Perform, Plan, Step

from sandbox_core.providers import SandboxClientProvider
from sandbox_core.worker import SandboxPlugin


async def perform(client: Client, queue: str, plan: Plan) -> tuple[list[Outcome], list[int]]:
    """Return what became of the steps, and the attempts of the activities."""
    handle = await client.start_workflow(
        Perform.run, plan, id=unique("perform"), task_queue=queue
    )
    return await handle.result(), attempts(await handle.fetch_history())


class _BlockingSession(UnixLocalSandboxSession):
    async def running(self) -> bool:
        time.sleep(4)  # noqa: ASYNC251 - as an SDK does that computes, or waits for a socket
        return True


class _BlockingClient(UnixLocalSandboxClient):
    def _wrap_session(self, inner: Any, **rest: Any) -> Any:
        inner.__class__ = _BlockingSession
        return super()._wrap_session(inner, **rest)


class _BlockingProvider(SandboxClientProvider[UnixLocalSandboxClientOptions]):
    name = "blocking"
    summary = "Blocks the event loop for longer than a heartbeat timeout"
    api_version = 1
    options_type = UnixLocalSandboxClientOptions

    def create_client(self) -> UnixLocalSandboxClient:
        return _BlockingClient()


class TestHeartbeats:
    """How Temporal knows that a worker lives."""

    async def test_go_on_while_the_event_loop_is_blocked(self, temporal_client: Client) -> None:
        """An operation that takes too long in it is not attempted again."""
        plugins = [SandboxPlugin(providers=[_BlockingProvider()])]
        async with running_worker(temporal_client, Perform, plugins=plugins) as queue:
            plan = Plan([Step("running")], provider="blocking", heartbeat_s=1)
            outcomes, tried = await perform(temporal_client, queue, plan)

        assert [Outcome(text="True")] == outcomes
        assert {1} == set(tried)
