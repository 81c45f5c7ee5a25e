"""Runs a worker's siblings: one at its own queue, and one for pings.

Together with it, they carry out as many concurrent activities as the application allows it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import temporalio.client
from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    ResourceBasedSlotSupplier,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    Worker,
    WorkerConfig,
    WorkerTuner,
)

from sandbox_core.wire.naming import ping_queue
from sandbox_core.worker.activities import Activity

# Temporal's default number of slots of each kind.
_DEFAULT_SLOTS = 100

# A worker's options that its siblings share. A limit on activities per second applies to each
# worker separately, because the server and the SDK count per queue.
_SAME = (
    "build_id",
    "debug_mode",
    "default_heartbeat_throttle_interval",
    "deployment_config",
    "disable_payload_error_limit",
    "identity",
    "interceptors",
    "max_activities_per_second",
    "max_heartbeat_throttle_interval",
    "max_task_queue_activities_per_second",
    "use_worker_versioning",
)

_GRACE = timedelta(seconds=30)
"""How long siblings wait for activities to end after the worker itself has stopped.

Temporal cancels them with the rest of the plugin 60 seconds after that.
"""

_POLLS = 2
"""The number of concurrent polls of the own queue, each of which occupies a slot."""


class SharedSlots(CustomSlotSupplier):
    """Activity slots that several workers share.

    A worker takes a slot before it polls for a task, and keeps it until it gets one, which may take
    forever. So that the queues do not starve each other, each may poll with one slot as long as
    activities do not use all of them. For a moment, there can thus be one additional activity for
    each queue but the first.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._used = 0
        self._asking: Counter[str] = Counter()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        # Temporal calls from its own threads.
        self._lock = threading.Lock()

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        """Wait for a slot for a poll, and return it."""
        while True:
            freed = asyncio.Event()
            with self._lock:
                if self._is_free(ctx.task_queue, at_least_one=True):
                    return self._taken(ctx.task_queue)
                waiting = (asyncio.get_running_loop(), freed)
                self._waiting.append(waiting)
            try:
                await freed.wait()
            finally:
                with self._lock:
                    if waiting in self._waiting:
                        self._waiting.remove(waiting)

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        """Return a slot for a task that is dispatched eagerly; None if there is none."""
        with self._lock:
            free = self._is_free(ctx.task_queue, at_least_one=False)
            return self._taken(ctx.task_queue) if free else None

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        """Record that a slot has a task."""
        permit = ctx.permit
        assert isinstance(permit, _Permit)
        with self._lock:
            if not permit.used:
                permit.used = True
                self._asking[permit.queue] -= 1
                self._used += 1

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        """Free a slot, and wake up those who wait for one."""
        permit = ctx.permit
        assert isinstance(permit, _Permit)
        with self._lock:
            if permit.used:
                self._used -= 1
            else:
                self._asking[permit.queue] -= 1
            waiting, self._waiting = self._waiting, []
        for loop, freed in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(freed.set)

    def _is_free(self, queue: str, *, at_least_one: bool) -> bool:
        if self._used + self._asking.total() < self.number:
            return True
        return at_least_one and self._asking[queue] == 0 and self._used < self.number

    def _taken(self, queue: str) -> _Permit:
        self._asking[queue] += 1
        return _Permit(queue)


class _Permit(SlotPermit):
    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.used = False


def share_slots(config: WorkerConfig) -> None:
    """Give a worker activity slots that its siblings can share."""
    tuner = config.get("tuner") or WorkerTuner.create_fixed(
        workflow_slots=config.get("max_concurrent_workflow_tasks"),
        activity_slots=config.get("max_concurrent_activities"),
        local_activity_slots=config.get("max_concurrent_local_activities"),
        nexus_slots=config.get("max_concurrent_nexus_tasks"),
    )
    activities = tuner._get_activity_task_slot_supplier()
    if not isinstance(activities, FixedSizeSlotSupplier):
        # The application's own tuner is shared unchanged. One based on the host's free resources
        # sees the siblings' usage.
        return
    config["tuner"] = WorkerTuner.create_composite(
        workflow_supplier=tuner._get_workflow_task_slot_supplier(),
        activity_supplier=SharedSlots(activities.num_slots),
        local_activity_supplier=tuner._get_local_activity_task_slot_supplier(),
        nexus_supplier=tuner._get_nexus_slot_supplier(),
    )
    for kind in ("workflow_tasks", "activities", "local_activities", "nexus_tasks"):
        config.pop(f"max_concurrent_{kind}", None)  # type: ignore[misc]  # all are such keys


@asynccontextmanager
async def siblings(
    worker: Worker, queue: str, activities: Sequence[Activity], pings: Sequence[Activity]
) -> AsyncIterator[None]:
    """Run a worker with the same activities at the worker's own queue, and one for pings."""
    config = worker.client.config(active_config=True)
    config["plugins"] = []  # A worker inherits its client's plugins, which would make siblings.
    client = temporalio.client.Client(**config)
    active = worker.config(active_config=True)
    grace = min(_GRACE, active.get("graceful_shutdown_timeout", timedelta()))
    same = WorkerConfig(**{key: active[key] for key in _SAME if key in active})  # type: ignore[literal-required, typeddict-item]  # all are such keys
    tuner = active.get("tuner")
    assert tuner is not None, "share_slots has set one"
    async with (
        Worker(
            client,
            task_queue=queue,
            activities=activities,
            tuner=_for_activities(tuner._get_activity_task_slot_supplier()),
            max_concurrent_activity_task_polls=_POLLS,
            graceful_shutdown_timeout=grace,
            **same,
        ),
        Worker(
            client,
            task_queue=ping_queue(queue),
            activities=pings,
            max_concurrent_activity_task_polls=1,
            **same,
        ),
    ):
        yield


def _for_activities(
    supplier: FixedSizeSlotSupplier | ResourceBasedSlotSupplier | CustomSlotSupplier,
) -> WorkerTuner:
    unused = FixedSizeSlotSupplier(_DEFAULT_SLOTS)
    return WorkerTuner.create_composite(
        workflow_supplier=unused,
        activity_supplier=supplier,
        local_activity_supplier=unused,
        nexus_supplier=unused,
    )
