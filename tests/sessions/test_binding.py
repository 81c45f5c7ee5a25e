"""A session stays with its worker if several share a task queue."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from local_backend import LocalProvider
from support import completed_activities, running_worker, scheduled_activities, unique
from temporalio.client import Client, WorkflowHistory
from workflows.sessions import StepByStep, Terminal, Watch

from sandbox_core.providers.registry import Provider
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.own_queue import own_queue

pytestmark = pytest.mark.any_sdk


class RoamingProvider(LocalProvider):
    """The local one, as if its sandboxes were anywhere."""

    name = "roaming"
    host_bound = False


def _queues(history: WorkflowHistory, operation: str) -> Counter[str]:
    """Return how often an operation was scheduled at each task queue."""
    return Counter(
        event.activity_task_scheduled_event_attributes.task_queue.name
        for event in history.events
        if event.activity_task_scheduled_event_attributes.activity_type.name
        == f"local-sandbox_{operation}"
    )


@asynccontextmanager
async def _workers(
    address: str, queue: str, workflow: type, *providers: Provider, count: int = 2
) -> AsyncIterator[Client]:
    """Run workers, each with a client of its own, as processes would."""
    client = await Client.connect(address)
    async with AsyncExitStack() as stack:
        for _ in range(count):
            of_worker = await Client.connect(address)
            plugins = [SandboxPlugin(providers=providers)]
            await stack.enter_async_context(
                running_worker(of_worker, workflow, task_queue=queue, eager=False, plugins=plugins)
            )
        yield client


class TestTwoWorkers:
    """Two workers of one task queue, and no eager dispatch to keep operations at one of them."""

    async def test_a_session_on_a_host_is_never_opened_twice(self, temporal_address: str) -> None:
        """From the first operation that the other worker takes, it asks at its own worker's."""
        queue = unique("queue")
        async with _workers(temporal_address, queue, StepByStep) as client:
            handle = await client.start_workflow(
                StepByStep.run, "local", id=unique("steps"), task_queue=queue
            )
            for number in range(20):
                await handle.execute_update(StepByStep.do, f"echo {number} >> lines.txt")
            lines = await handle.execute_update(StepByStep.do, "cat lines.txt")
            await handle.signal(StepByStep.finish)
            await handle.result()
            history = await handle.fetch_history()

        assert [str(number) for number in range(20)] == lines.split()
        # A worker that does not hold it asks whether the one that does is gone.
        assert Counter({queue: 1}) >= _queues(history, "resume_session")
        assert "local-sandbox_resume_session" not in completed_activities(history)
        asked = _queues(history, "exec")
        assert {queue, *asked} <= {queue, *(f"{queue}@{socket.gethostname()}#{s}" for s in (0, 1))}
        assert 23 >= asked.total()  # One of them was refused at most once, and each ran once.

    async def test_terminals_of_many_sessions_stay_reachable(self, temporal_address: str) -> None:
        """A terminal lives in the process of the worker that has opened it."""
        queue = unique("queue")
        async with _workers(temporal_address, queue, Terminal) as client:
            spoken = await asyncio.gather(
                *(
                    client.execute_workflow(
                        Terminal.run, str(number), id=unique("terminal"), task_queue=queue
                    )
                    for number in range(10)
                )
            )

        assert [f"heard {number}" for number in range(10)] == spoken

    async def test_without_the_helper_processes_without_a_terminal_stay_reachable(
        self, temporal_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each is the backend's own then, and a session may be opened by any worker."""
        monkeypatch.setenv("SANDBOX_CORE_HELPER", "off")
        queue = unique("queue")
        async with _workers(temporal_address, queue, Watch, RoamingProvider()) as client:
            said = await asyncio.gather(
                *(
                    client.execute_workflow(
                        Watch.run,
                        args=["roaming", str(number)],
                        id=unique("watch"),
                        task_queue=queue,
                    )
                    for number in range(6)
                )
            )

        assert [f"said {number}" for number in range(6)] == said


class TestManyWorkers:
    """Among many, without eager dispatch, hardly any operation lands on the right one by chance."""

    async def test_an_operation_follows_its_session_to_where_it_was_resumed(
        self, temporal_address: str
    ) -> None:
        queue = unique("queue")
        async with _workers(
            temporal_address, queue, StepByStep, RoamingProvider(), count=6
        ) as client:
            handle = await client.start_workflow(
                StepByStep.run, "roaming", id=unique("steps"), task_queue=queue
            )
            for number in range(20):
                await handle.execute_update(StepByStep.do, f"echo {number}")
            await handle.signal(StepByStep.finish)
            await handle.result()
            asked = scheduled_activities(await handle.fetch_history())

        story = "".join(name.removeprefix("roaming-sandbox_")[0] for name in asked)
        assert 20 <= story.count("e")
        assert "ererer" not in story, "exec and resume_session, more than twice for one command"


class TestOwnQueue:
    """The queue of one worker of a host."""

    def test_each_worker_of_a_host_has_its_own(self) -> None:
        """The first that is free, so that a restarted worker has that of its predecessor."""
        namespace, host = unique("namespace"), socket.gethostname()
        with own_queue(namespace, "agents") as first:
            with own_queue(namespace, "agents") as second:
                seen = [first, second]
            with own_queue(namespace, "agents") as third:
                seen.append(third)
        with own_queue(namespace, "agents") as fourth:
            seen.append(fourth)

        assert [f"agents@{host}#{slot}" for slot in (0, 1, 1, 0)] == seen

    def test_other_task_queues_and_namespaces_do_not_matter(self) -> None:
        """Slots are counted for each."""
        namespace, host = unique("namespace"), socket.gethostname()
        with (
            own_queue(namespace, "agents") as one,
            own_queue(namespace, "others") as two,
            own_queue(unique("namespace"), "agents") as three,
        ):
            seen = [one, two, three]

        assert [f"agents@{host}#0", f"others@{host}#0", f"agents@{host}#0"] == seen
