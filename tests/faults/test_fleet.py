"""Sessions continue while workers come and go, on one host and on several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from faults.hosts import Host, hosts
from faults.keeping import Handle, do, end, keep
from local_backend import LocalProvider
from support import completed_activities, running_worker, scheduled_activities, unique, until
from temporalio.client import Client, WorkflowHistory, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from workflows.fleet import AppendLines, KeepSession, Kept

from sandbox_core.worker import SandboxPlugin

# A worker that stops drops its workflows, and with them what they wait for, unfinished.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CORE_STORAGE", str(tmp_path / "storage"))
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")
    monkeypatch.delenv("TMPDIR", raising=False)


class GatedProvider(LocalProvider):
    """The local one, whose lookups wait until they are let through."""

    name = "gated"

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let_through = asyncio.Event()

    async def exists(self, client: UnixLocalSandboxClient, sandbox_id: str) -> bool:
        self.asked.set()
        await self.let_through.wait()
        return await super().exists(client, sandbox_id)


class TestEightFirstUses:
    """All at once, after the worker that held the session was replaced."""

    @pytest.mark.parametrize(
        "cancelled",
        [[], [0], [3], list(range(8))],
        ids=["none cancelled", "the first cancelled", "another cancelled", "all cancelled"],
    )
    async def test_resume_the_session_once(
        self, temporal_client: Client, cancelled: list[int]
    ) -> None:
        """A use that is cancelled takes nothing from the others, nor from those after it."""
        queue = unique("queue")
        async with gated_worker(temporal_client, queue, GatedProvider()):
            handle = await keep(temporal_client, queue, Kept(provider="gated"))
            await do(handle, "echo edited > hello.txt")
        gate = GatedProvider()
        async with gated_worker(temporal_client, queue, gate):
            reading = asyncio.create_task(handle.execute_update(KeepSession.read_at_once, 8))
            await gate.asked.wait()
            await refusals(handle, 8)
            await handle.execute_update(KeepSession.cancel_reads, cancelled)
            gate.let_through.set()
            seen = await reading
            after = await handle.execute_update(KeepSession.read, "hello.txt")
            await end(handle)

        assert ["cancelled" if n in cancelled else "edited\n" for n in range(8)] == seen
        assert "edited\n" == after
        performed = scheduled_activities(await handle.fetch_history())
        assert 1 == performed.count("gated-sandbox_resume_session")

    async def test_leave_no_resume_behind_if_all_are_given_up(
        self, temporal_client: Client
    ) -> None:
        """The session is deleted when it is known what the resume has opened."""
        queue = unique("queue")
        async with gated_worker(temporal_client, queue, GatedProvider()):
            handle = await keep(temporal_client, queue, Kept(provider="gated"))
            await do(handle, "true")
        gate = GatedProvider()
        async with gated_worker(temporal_client, queue, gate):
            reading = asyncio.create_task(handle.execute_update(KeepSession.read_at_once, 8))
            await gate.asked.wait()
            await refusals(handle, 8)
            await handle.signal(KeepSession.finish)
            await handle.execute_update(KeepSession.cancel_reads, [*range(8)])
            seen = await reading
            gate.let_through.set()
            await handle.result()

        assert ["cancelled"] * 8 == seen
        resume, delete = "gated-sandbox_resume_session", "gated-sandbox_delete_session"
        course = course_of(await handle.fetch_history())
        assert [f"{resume} ends", f"{delete} begins", f"{delete} ends"] == course[-3:]
        assert 1 == course.count(f"{resume} begins")


def gated_worker(
    client: Client, queue: str, provider: GatedProvider
) -> AbstractAsyncContextManager[str]:
    plugins = [SandboxPlugin(providers=[provider])]
    return running_worker(client, KeepSession, plugins=plugins, task_queue=queue)


def course_of(history: WorkflowHistory) -> list[str]:
    """Return which activities were scheduled and which have completed, in order."""
    names: dict[int, str] = {}
    course = []
    for event in history.events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            name = event.activity_task_scheduled_event_attributes.activity_type.name
            names[event.event_id] = name
            course.append(f"{name} begins")
        elif event.HasField("activity_task_completed_event_attributes"):
            begun = event.activity_task_completed_event_attributes.scheduled_event_id
            course.append(f"{names[begun]} ends")
    return course


async def refusals(handle: Handle, count: int) -> None:
    """Return when the workflow knows of so many activities that its new worker has refused."""
    async for event in handle.fetch_history_events(wait_new_event=True):
        count -= event.HasField("activity_task_failed_event_attributes")
        if not count:
            break
    await handle.query(KeepSession.root)  # It is answered when all that is recorded was handled.


async def _are_there(host: Host, pattern: str, count: int) -> bool:
    return len(await host.glob(pattern)) >= count


def asked_at(history: WorkflowHistory, operation: str) -> list[str]:
    """Return the task queue of each activity for an operation, in order."""
    return [
        event.activity_task_scheduled_event_attributes.task_queue.name
        for event in history.events
        if event.activity_task_scheduled_event_attributes.activity_type.name
        == f"local-sandbox_{operation}"
    ]


def hosts_of(history: WorkflowHistory, operation: str) -> set[str]:
    """Return the hosts on which activities for an operation have completed."""
    scheduled, started = {}, {}
    for event in history.events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            name = event.activity_task_scheduled_event_attributes.activity_type.name
            scheduled[event.event_id] = name
        elif event.HasField("activity_task_started_event_attributes"):
            started[event.event_id] = event.activity_task_started_event_attributes.identity
    ended = [
        event.activity_task_completed_event_attributes
        for event in history.events
        if event.HasField("activity_task_completed_event_attributes")
    ]
    return {
        started[each.started_event_id].partition("@")[2]
        for each in ended
        if scheduled[each.scheduled_event_id] == f"local-sandbox_{operation}"
    }


class TestHosts:
    """Two hosts, with a worker on one of them or on both; the workflows run elsewhere.

    What a host's worker holds, nobody else can reach.
    """

    @pytest.fixture
    async def pair(self, temporal_address: str, tmp_path: Path) -> AsyncIterator[list[Host]]:
        async with hosts(temporal_address, tmp_path, "alpha", "beta") as started:
            yield started

    @pytest.fixture
    async def queue(self, temporal_client: Client) -> AsyncIterator[str]:
        plugins = [SandboxPlugin(register_activities=False)]
        async with running_worker(temporal_client, KeepSession, plugins=plugins) as name:
            yield name

    async def test_sessions_stay_with_their_host(
        self, temporal_client: Client, queue: str, pair: list[Host]
    ) -> None:
        """Whichever it is, although both ask for the same tasks."""
        await asyncio.gather(*(host.start(queue) for host in pair))
        handles = [await keep(temporal_client, queue) for _ in range(6)]

        async def work(handle: Handle) -> list[str]:
            seen = [await do(handle, "hostname | tee -a hosts; sleep 0.05") for _ in range(6)]
            return [*seen, (await do(handle, "cat hosts"))]

        seen = await asyncio.gather(*map(work, handles))
        histories = [await handle.fetch_history() for handle in handles]
        await asyncio.gather(*map(end, handles))

        for lines in seen:
            assert 1 == len(set(lines[:-1]))
            assert "".join(lines[:-1]) == lines[-1]
        for history in histories:
            # A worker of the other host may be asked once, and does not open it.
            assert 1 >= len(asked_at(history, "resume_session"))
            assert "local-sandbox_resume_session" not in completed_activities(history)
        assert [[], []] == [await host.glob("/tmp/sandbox-local-*") for host in pair]

    async def test_a_session_waits_for_the_worker_of_its_host(
        self, temporal_client: Client, queue: str, pair: list[Host]
    ) -> None:
        """One that is started in time goes on where the killed one was."""
        alpha, beta = pair
        first = await alpha.start(queue)
        handle = await keep(temporal_client, queue)
        await do(handle, "echo edited > hello.txt")
        await beta.start(queue)
        first.kill()
        seeing = asyncio.create_task(do(handle, "hostname; cat hello.txt"))
        await alpha.start(queue)
        seen = await seeing
        restored = await handle.execute_update(KeepSession.restorations)
        await end(handle)

        assert "alpha\nedited\n" == seen
        assert [] == restored
        assert [[], []] == [await host.glob("/tmp/sandbox-local-*") for host in pair]

    async def test_a_session_waits_for_its_worker_while_that_is_busy(
        self, temporal_client: Client, queue: str, pair: list[Host]
    ) -> None:
        """Longer than an operation waits in a queue, and although another worker has nothing to do.

        What was never saved would be lost if it were given up.
        """
        alpha, beta = pair
        await alpha.start(queue, slots=1)
        handle = await keep(temporal_client, queue, Kept(schedule_to_start_s=1))
        await do(handle, "echo edited > hello.txt")
        await beta.start(queue)
        each = [f"sleep 3; echo {number} >> lines.txt" for number in range(4)]
        await asyncio.gather(*(do(handle, command) for command in each))
        seen = await do(handle, "hostname; cat hello.txt; sort lines.txt")
        restored = await handle.execute_update(KeepSession.restorations)
        history = await handle.fetch_history()
        await end(handle)

        assert "alpha\nedited\n0\n1\n2\n3\n" == seen
        assert [] == restored
        assert "local-sandbox_ping" in completed_activities(history)
        # One that finds the worker between two commands joins the session that it holds.
        assert hosts_of(history, "resume_session") <= {"alpha"}

    async def test_a_worker_that_stays_busy_is_waited_for_as_long_as_the_config_allows(
        self, temporal_client: Client, queue: str, pair: list[Host]
    ) -> None:
        """And then the error says what to do; the session is as it was."""
        alpha, beta = pair
        await alpha.start(queue, slots=1)
        kept = Kept(schedule_to_start_s=1, schedule_to_close_s=4)
        handle = await keep(temporal_client, queue, kept)
        await do(handle, "echo edited > hello.txt")
        other = await keep(temporal_client, queue)
        await do(other, "true")
        await beta.start(queue)
        filling = [asyncio.create_task(do(other, "touch $$.fill; sleep 12")) for _ in range(3)]
        await until(partial(_are_there, alpha, "/tmp/sandbox-local-*/*.fill", 2))
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await do(handle, "cat hello.txt")
        await asyncio.gather(*filling)
        seen = await do(handle, "hostname; cat hello.txt")
        await asyncio.gather(end(handle), end(other))

        assert isinstance(failed.value.cause, ApplicationError)
        assert "WorkerBusy" == failed.value.cause.type
        assert f"the worker of task queue '{queue}@alpha#0' is alive" in failed.value.cause.message
        assert "max_concurrent_activities" in failed.value.cause.message
        assert "alpha\nedited\n" == seen

    async def test_a_sandbox_is_deleted_by_its_worker_however_busy_that_is(
        self, temporal_client: Client, queue: str, pair: list[Host]
    ) -> None:
        """Nobody else could, and it would be left."""
        alpha, beta = pair
        await alpha.start(queue, slots=1)
        handle = await keep(temporal_client, queue, Kept(schedule_to_start_s=1))
        await do(handle, "echo edited > hello.txt")
        root = await handle.query(KeepSession.root)
        other = await keep(temporal_client, queue)
        await do(other, "true")
        await beta.start(queue)
        filling = [asyncio.create_task(do(other, "touch $$.fill; sleep 8")) for _ in range(3)]
        await until(partial(_are_there, alpha, "/tmp/sandbox-local-*/*.fill", 2))
        await end(handle)
        left = await alpha.glob(root)
        await asyncio.gather(*filling)
        await end(other)

        assert [] == left
        assert "local-sandbox_ping" in completed_activities(await handle.fetch_history())

    async def test_a_session_is_restored_elsewhere_when_its_host_stays_away(
        self, temporal_client: Client, queue: str, pair: list[Host]
    ) -> None:
        """From its snapshot; and when the host is back, with an old handle, it changes nothing."""
        alpha, beta = pair
        await alpha.start(queue)
        handle = await keep(temporal_client, queue, Kept(schedule_to_start_s=3))
        await do(handle, "echo edited > hello.txt")
        await handle.execute_update(KeepSession.save)
        await do(handle, "echo too late >> hello.txt")
        await beta.start(queue)
        with alpha.cut_off():
            seen = await do(handle, "hostname; cat hello.txt")
            restored = await handle.execute_update(KeepSession.restorations)
            await do(handle, "echo on beta >> hello.txt")
        more = [await do(handle, "hostname; cat hello.txt") for _ in range(5)]
        await end(handle)

        assert "beta\nedited\n" == seen
        assert 1 == len(restored)
        assert ["beta\nedited\non beta\n"] * 5 == more
        assert [] == await beta.glob("/tmp/sandbox-local-*")

    async def test_a_session_without_a_snapshot_is_lost_with_its_host(
        self, temporal_client: Client, queue: str, pair: list[Host]
    ) -> None:
        """The error says where it was."""
        alpha, beta = pair
        first = await alpha.start(queue)
        handle = await keep(temporal_client, queue, Kept(schedule_to_start_s=2))
        await do(handle, "echo edited > hello.txt")
        root = await handle.query(KeepSession.root)
        first.kill()
        await beta.start(queue)
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await do(handle, "cat hello.txt")
        await end(handle)  # Nobody has to be there for that: there is nothing to delete.

        assert isinstance(failed.value.cause, ApplicationError)
        assert "SandboxLost" == failed.value.cause.type
        assert failed.value.cause.message.startswith(f"sandbox {root} of provider 'local' ")
        assert " on host alpha" in failed.value.cause.message
        assert [] == await beta.glob("/tmp/sandbox-local-*")


class TestRollingRestart:
    """Three workers are replaced, one after another, while six workflows work."""

    async def test_loses_nothing_and_does_nothing_twice(
        self, temporal_address: str, temporal_client: Client, tmp_path: Path
    ) -> None:
        """Each appends numbered lines, one command each."""
        queue = unique("queue")
        async with hosts(temporal_address, tmp_path, "gamma") as (host,):
            old = await asyncio.gather(*(host.start(queue, AppendLines) for _ in range(3)))
            handles = [
                await temporal_client.start_workflow(
                    AppendLines.run, 0.2, id=unique("lines"), task_queue=queue
                )
                for _ in range(6)
            ]
            for handle in handles:
                await handle.execute_update(AppendLines.begun)
            for worker in old:
                await asyncio.to_thread(worker.stop)
                await host.start(queue, AppendLines)
            for handle in handles:
                await handle.signal(AppendLines.enough)
            appended = await asyncio.gather(*(handle.result() for handle in handles))
            left = await host.glob("/tmp/sandbox-local-*")
        histories = [await handle.fetch_history() for handle in handles]

        for count, seen in appended:
            assert "".join(f"{number}\n" for number in range(count)) == seen
        assert [] == left
        for history in histories:  # Each session was at a worker that is not there any more.
            assert "local-sandbox_resume_session" in scheduled_activities(history)
