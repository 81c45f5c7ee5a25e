"""The workers at a worker's own queue do not exceed the worker's own limits."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from support import running_worker, unique, until
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    Worker,
    WorkerDeploymentConfig,
    WorkerTuner,
)
from workflows.sessions import Terminal
from workflows.siblings import Crowd

from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.siblings import SharedSlots

pytestmark = pytest.mark.any_sdk


@dataclass(frozen=True)
class Reserve:
    """What Temporal says of the worker that wants a slot."""

    task_queue: str
    slot_type: str = "activity"
    worker_identity: str = ""
    worker_build_id: str = ""
    worker_deployment_version: None = None
    is_sticky: bool = False


@dataclass(frozen=True)
class Use:
    """What Temporal says of a slot."""

    permit: SlotPermit
    slot_info: None = None


def reserve(slots: SharedSlots, queue: str) -> asyncio.Task[SlotPermit]:
    return asyncio.create_task(slots.reserve_slot(Reserve(queue)))  # type: ignore[arg-type]  # as much of one as is asked


def use(slots: SharedSlots, permit: SlotPermit) -> None:
    slots.mark_slot_used(Use(permit))  # type: ignore[arg-type]  # as much of one as is asked


def release(slots: SharedSlots, permit: SlotPermit) -> None:
    slots.release_slot(Use(permit))  # type: ignore[arg-type]  # as much of one as is asked


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class TestSharedSlots:
    async def test_are_not_all_taken_by_the_requests_of_one_queue(self) -> None:
        slots = SharedSlots(2)
        ours = [await reserve(slots, "ours"), await reserve(slots, "ours")]
        third, sibling = reserve(slots, "ours"), reserve(slots, "own")
        await settled()

        assert [False, True] == [third.done(), sibling.done()]
        third.cancel()
        for permit in (*ours, await sibling):
            release(slots, permit)

    async def test_that_are_used_are_nobody_elses_until_they_are_free(self) -> None:
        slots = SharedSlots(2)
        used = [await reserve(slots, "ours"), await reserve(slots, "own")]
        for permit in used:
            use(slots, permit)
        waiting = [reserve(slots, "ours"), reserve(slots, "own")]
        await settled()
        assert [False, False] == [each.done() for each in waiting]
        assert slots.try_reserve_slot(Reserve("ours")) is None  # type: ignore[arg-type]  # as much of one as is asked

        release(slots, used[0])
        await asyncio.gather(*waiting)  # Each queue may ask; what comes first takes the slot.

        assert slots.try_reserve_slot(Reserve("ours")) is None  # type: ignore[arg-type]  # as much of one as is asked

    async def test_of_an_abandoned_wait_go_to_others(self) -> None:
        slots = SharedSlots(1)
        used = await reserve(slots, "ours")
        use(slots, used)
        cancelled, waiting = reserve(slots, "ours"), reserve(slots, "own")
        await settled()
        cancelled.cancel()
        release(slots, used)

        await asyncio.wait_for(waiting, 20)


class TestConcurrency:
    async def test_is_what_the_worker_was_allowed_and_one_more(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """However many ask at the worker's own queue and at the shared one."""
        log = tmp_path / "log"
        queue = unique("crowd")
        async with Worker(
            temporal_client,
            task_queue=queue,
            workflows=[Crowd],
            plugins=[SandboxPlugin()],
            max_concurrent_activities=2,
        ):
            await asyncio.gather(
                *(
                    temporal_client.execute_workflow(
                        Crowd.run,
                        args=[pinned, str(log), 8],
                        id=unique("crowd"),
                        task_queue=queue,
                    )
                    for pinned in (True, False)
                )
            )

        steps = [1 if line == "+" else -1 for line in log.read_text().split()]
        assert 32 == len(steps)
        assert max(accumulate(steps)) <= 3


async def pollers(client: Client, queue: str) -> list[PollerInfo]:
    described = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        )
    )
    return list(described.pollers)


async def _is_polled(client: Client, queue: str) -> bool:
    return bool(await pollers(client, queue))


class TestOptions:
    async def test_are_those_of_the_worker(self, temporal_client: Client) -> None:
        """Its version, its name and the limits on its rate, as the server sees them."""
        queue = unique("options")
        version = WorkerDeploymentVersion(deployment_name=unique("acme"), build_id="1.2")
        own = f"{queue}@{socket.gethostname()}#0"
        async with Worker(
            temporal_client,
            task_queue=queue,
            workflows=[Terminal],
            plugins=[SandboxPlugin()],
            identity="acme's worker",
            max_task_queue_activities_per_second=50,
            deployment_config=WorkerDeploymentConfig(
                version=version,
                use_worker_versioning=True,
                default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
            ),
        ):
            seen = []
            for name in (own, f"{own}/ping"):
                await until(partial(_is_polled, temporal_client, name))
                seen += await pollers(temporal_client, name)

        for poller in seen:
            assert "acme's worker" == poller.identity
            assert 50 == poller.rate_per_second
            assert version.deployment_name == poller.deployment_options.deployment_name
            assert "1.2" == poller.deployment_options.build_id

    async def test_the_applications_tuner_applies_to_all(self, temporal_client: Client) -> None:
        """What it decides for the worker's own queue too is its business."""
        mine = Mine()
        unused = FixedSizeSlotSupplier(10)
        tuner = WorkerTuner.create_composite(
            workflow_supplier=unused,
            activity_supplier=mine,
            local_activity_supplier=unused,
            nexus_supplier=unused,
        )
        queue = unique("tuner")
        async with Worker(
            temporal_client,
            task_queue=queue,
            workflows=[Terminal],
            plugins=[SandboxPlugin()],
            tuner=tuner,
        ):
            heard = await temporal_client.execute_workflow(
                Terminal.run, "it", id=unique("tuner"), task_queue=queue
            )

        assert "heard it" == heard
        assert {queue, f"{queue}@{socket.gethostname()}#0"} == mine.asked


class Mine(CustomSlotSupplier):
    """Gives a slot to whoever asks, and remembers for which queue."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        self.asked.add(ctx.task_queue)
        return SlotPermit()

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        pass

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        pass


class TestTwoPlugins:
    @pytest.mark.parametrize(
        "other",
        [{"max_sandboxes": {"local": 1}}, {"storage_threshold": 1}, {"worker_env": ["TOKEN"]}],
        ids=lambda other: next(iter(other)),
    )
    async def test_with_different_settings_are_refused(
        self, temporal_client: Client, other: dict[str, Any]
    ) -> None:
        """The settings of one of them would not hold, and nobody would know."""
        config = temporal_client.config()
        config["plugins"] = [SandboxPlugin()]
        client = Client(**config)

        with (
            pytest.warns(UserWarning, match="present from both client and worker"),
            pytest.raises(ValueError, match="to the client or to the worker"),
        ):
            Worker(
                client,
                task_queue=unique("two"),
                workflows=[Terminal],
                plugins=[SandboxPlugin(**other)],
            )

    @pytest.mark.filterwarnings("ignore:The same plugin type")
    async def test_the_same_one_for_both_is_one(self, temporal_client: Client) -> None:
        plugin = SandboxPlugin()
        config = temporal_client.config()
        config["plugins"] = [plugin]
        async with running_worker(Client(**config), Terminal, plugins=[plugin]) as queue:
            heard = await temporal_client.execute_workflow(
                Terminal.run, "it", id=unique("same"), task_queue=queue
            )

        assert "heard it" == heard
