"""Workers in their own processes, which are killed with SIGKILL and replaced.

In addition to the installed providers they have `faulty`, whose fault is set by the variable
``SANDBOX_FAULT``; see `faults.faulty`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from faults.faulty import Fault, faulty_provider
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.service import GrpcCompression, RPCError
from temporalio.worker import Worker

from sandbox_core.testing.worker_process import WorkerProcess, ready_plugin
from sandbox_core.worker import SandboxPlugin

_T = TypeVar("_T")

SLOTS_VARIABLE = "SANDBOX_TEST_SLOTS"
"""How many activities a worker runs at a time, if not 100."""


def start_worker(
    address: str,
    queue: str,
    *workflows: type,
    variables: Mapping[str, str] | None = None,
    target: str = f"{__name__}:run",
) -> WorkerProcess:
    """Start one worker; what it logs is shown."""
    names = [f"{workflow.__module__}:{workflow.__qualname__}" for workflow in workflows]
    return WorkerProcess(target, address, queue, *names, variables=variables)


class Workers:
    """The workers of one queue; those that still run are killed at the end."""

    def __init__(self, address: str, queue: str, *workflows: type) -> None:
        self.queue = queue
        self._address, self._workflows = address, workflows
        self._started: list[WorkerProcess] = []

    async def start(
        self, *, address: str | None = None, variables: Mapping[str, str] | None = None
    ) -> WorkerProcess:
        """Start one more worker, and return it when it polls.

        Args:
            address: Where it reaches the server, if not where the others do.
            variables: What its environment has besides that of this process.
        """
        worker = start_worker(
            address or self._address, self.queue, *self._workflows, variables=variables
        )
        self._started.append(worker)
        await asyncio.to_thread(worker.wait_until_ready)
        return worker

    def running(self) -> list[WorkerProcess]:
        """Return those that have not ended."""
        return [worker for worker in self._started if worker.is_running()]

    def kill_all(self) -> None:
        """Kill those that still run."""
        for worker in self._started:
            worker.kill()


@contextmanager
def workers(address: str, queue: str, *workflows: type) -> Iterator[Workers]:
    """Yield the workers of a queue, none yet."""
    started = Workers(address, queue, *workflows)
    try:
        yield started
    finally:
        started.kill_all()


async def line_of(path: Path) -> str:
    """Return the first line of a file as soon as it is there, and whole."""

    def wait() -> str:
        script = 'until read -r line <"$1"; do sleep 0.01; done 2>/dev/null; echo "$line"'
        shown = subprocess.run(
            ["sh", "-c", script, "sh", str(path)], check=True, capture_output=True, text=True
        )
        return shown.stdout.strip()

    return await asyncio.to_thread(wait)


def running(pid: int) -> bool:
    """Return whether there is such a process, and it has not ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


async def ended(pid: int) -> None:
    """Return when the process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def completed(handle: WorkflowHandle[Any, Any], activity: str) -> None:
    """Return when the server has the result of the activity."""
    scheduled = set[int]()
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            if activity == event.activity_task_scheduled_event_attributes.activity_type.name:
                scheduled.add(event.event_id)
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            attributes = event.activity_task_completed_event_attributes
            if attributes.scheduled_event_id in scheduled:
                return
    raise AssertionError(f"the workflow ended without {activity}")


async def result_of(handle: WorkflowHandle[Any, _T]) -> _T:
    """Return the result of a workflow, however often the server is away meanwhile."""
    while True:
        with suppress(RPCError):
            return await handle.result()


def run(address: str, queue: str, *workflows: str) -> None:
    """Run one worker, with workflows as ``module:Class``, until it gets SIGTERM."""
    asyncio.run(_work(address, queue, workflows))


async def _work(address: str, queue: str, names: Sequence[str]) -> None:
    workflows = []
    for name in names:
        module, _, attribute = name.partition(":")
        workflows.append(getattr(importlib.import_module(module), attribute))
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with Worker(
        # Uncompressed, so that whoever is in between can recognise a request.
        await Client.connect(address, grpc_compression=GrpcCompression.NONE),
        task_queue=queue,
        workflows=workflows,
        # What the last plugin does comes when all others have had their say, right before it polls.
        plugins=[
            SandboxPlugin(providers=[faulty_provider(Fault.from_environment())]),
            ready_plugin(),
        ],
        # Otherwise Temporal makes one of the code of all imported modules, which takes longer than
        # anything else when a worker starts.
        build_id="tests",
        # A killed worker's workflows go to another one at once.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=0.5),
        max_concurrent_activities=int(os.environ.get(SLOTS_VARIABLE, 100)),
    ):
        await stopping.wait()
