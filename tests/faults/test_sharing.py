"""Several handles and children use one session concurrently, on several workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults.harness import Workers, workers
from local_backend import LocalProvider
from support import completed_activities, running_worker, scheduled_activities, unique, until
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from workflows.sharing import Shared, ShareSession, UseShared

from sandbox_core.worker.sessions.labels import WORKFLOW_ID

RESUME = "local-sandbox_resume_session"


def lines_of(shared: Shared) -> list[str]:
    """Return the line of each command of each user."""
    users = ["owner"]
    users += [f"handle-{number}" for number in range(shared.handles)]
    users += [f"child-{number}" for number in range(shared.children)]
    return sorted(f"{user}.{number}" for user in users for number in range(shared.commands))


class TestOneWorker:
    @pytest.mark.parametrize(
        "shared",
        [
            Shared(handles=4),
            Shared(children=4),
            Shared(handles=2, children=2, whole=True),
        ],
        ids=["four handles", "four children", "started and shut down by each"],
    )
    async def test_every_command_runs_once(self, temporal_client: Client, shared: Shared) -> None:
        """And each opens the session once."""
        async with running_worker(temporal_client, ShareSession, UseShared) as queue:
            handle = await temporal_client.start_workflow(
                ShareSession.run, shared, id=unique("share"), task_queue=queue
            )
            seen = await handle.result()
            history = await handle.fetch_history()

        assert lines_of(shared) == sorted(seen)
        assert shared.handles == scheduled_activities(history).count(RESUME)
        assert shared.handles == completed_activities(history).count(RESUME)


class TestTwoWorkers:
    @pytest.fixture
    async def fleet(self, temporal_address: str) -> AsyncIterator[Workers]:
        with workers(temporal_address, unique("share"), ShareSession, UseShared) as started:
            yield started

    async def test_twenty_children_survive_one_that_is_killed(
        self, temporal_client: Client, fleet: Workers
    ) -> None:
        """Every command runs once, and every child is done."""
        first, _second = await asyncio.gather(fleet.start(), fleet.start())
        shared = Shared(children=20, pause_s=0.2)
        handle = await temporal_client.start_workflow(
            ShareSession.run, shared, id=unique("share"), task_queue=fleet.queue
        )
        lines = partial(_has_lines, temporal_client, handle.id, 30)
        await until(lines, within_s=60)
        first.kill()
        await fleet.start()

        assert lines_of(shared) == sorted(await handle.result())


class TestOwner:
    async def test_of_a_sandbox_that_a_child_uses_is_the_parent(
        self, temporal_client: Client
    ) -> None:
        """Or `sandbox-core reap` would delete it when the child is done."""
        queue = unique("share")
        async with running_worker(temporal_client, ShareSession, task_queue=queue):
            handle = await temporal_client.start_workflow(
                ShareSession.run, Shared(children=1), id=unique("share"), task_queue=queue
            )
            child = temporal_client.get_workflow_handle(f"{handle.id}-0")
            await until(partial(_exists, child))
            assert {handle.id} == await owners_of(handle.id)
        # The child is begun by another worker, which does not hold the session.
        async with running_worker(temporal_client, ShareSession, UseShared, task_queue=queue):
            async for event in child.fetch_history_events(wait_new_event=True):
                if event.HasField("activity_task_completed_event_attributes"):
                    break
            owners = await owners_of(handle.id)
            seen = await handle.result()

        assert lines_of(Shared(children=1)) == sorted(seen)
        assert {handle.id} >= owners


async def owners_of(prefix: str) -> set[str]:
    """Return who owns the sandboxes of workflows whose ids begin so."""
    provider = LocalProvider()
    found = await provider.find(provider.create_client(), {})
    owners = {sandbox.labels.get(WORKFLOW_ID, "") for sandbox in found}
    return {owner for owner in owners if owner.startswith(prefix)}


async def _exists(handle: WorkflowHandle[Any, Any]) -> bool:
    try:
        await handle.describe()
    except RPCError:
        return False
    return True


async def _has_lines(client: Client, workflow_id: str, count: int) -> bool:
    root = await client.get_workflow_handle(workflow_id).query(ShareSession.root)
    lines = Path(root) / "lines.txt"
    if not root or not await asyncio.to_thread(lines.exists):
        return False
    return len((await asyncio.to_thread(lines.read_text)).split()) >= count
