"""Each create leaves exactly one sandbox, and a failed create none, whatever fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession
from faults.faulty import Fault
from faults.harness import Workers, workers
from local_backend import LocalClient, LocalProvider
from support import running_worker, scheduled_activities, unique, until
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from workflows.creates import CreateAndHold, Hold, SameKeyTwice, UsesWhatWasDiscarded

from sandbox_core.errors import AtCapacity
from sandbox_core.testing.worker_process import WorkerProcess
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.sessions.capacity import Capacity
from sandbox_core.worker.sessions.labels import ATTEMPT, WORKFLOW_ID

Handle = WorkflowHandle[CreateAndHold, str]


@pytest.fixture
async def fleet(temporal_address: str) -> AsyncIterator[Workers]:
    with workers(temporal_address, unique("creates"), CreateAndHold) as started:
        yield started


async def start(client: Client, queue: str, hold: Hold) -> Handle:
    return await client.start_workflow(
        CreateAndHold.run, hold, id=unique("create"), task_queue=queue
    )


async def sandboxes_of(handle: Handle) -> list[str]:
    """Return the directories of a workflow's sandboxes."""
    provider = LocalProvider()
    found = await provider.find(provider.create_client(), {WORKFLOW_ID: handle.id})
    return [sandbox.sandbox_id for sandbox in found]


async def finish(handle: Handle) -> str:
    await handle.signal(CreateAndHold.finish)
    return await handle.result()


async def has_one(handle: Handle) -> bool:
    return bool(await sandboxes_of(handle))


async def has_none(handle: Handle) -> bool:
    return not await sandboxes_of(handle)


async def waited(handle: Handle) -> list[str]:
    """Return the summaries of the timers that a workflow has started."""
    return [
        event.user_metadata.summary.data.decode()
        for event in (await handle.fetch_history()).events
        if event.HasField("timer_started_event_attributes")
    ]


async def waits(handle: Handle) -> bool:
    return bool(await waited(handle))


class TestOneSandboxForACreate:
    async def _faulty(self, fleet: Workers, tmp_path: Path, moment: str, act: str) -> WorkerProcess:
        fault = Fault("create", moment, act, tmp_path / "failed")
        return await fleet.start(variables=fault.variable())

    @pytest.mark.parametrize("moment", ["before", "during", "after"])
    async def test_whose_worker_is_killed(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path, moment: str
    ) -> None:
        first = await self._faulty(fleet, tmp_path, moment, "kill")
        handle = await start(temporal_client, fleet.queue, Hold("faulty"))
        await asyncio.to_thread(first.wait)

        await fleet.start()
        root = await handle.execute_update(CreateAndHold.root)

        assert [root] == await sandboxes_of(handle)
        assert root == await finish(handle)
        assert [] == await sandboxes_of(handle)

    async def test_whose_answer_is_lost(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        await self._faulty(fleet, tmp_path, "after", "raise")
        handle = await start(temporal_client, fleet.queue, Hold("faulty"))

        root = await handle.execute_update(CreateAndHold.root)

        assert [root] == await sandboxes_of(handle)
        assert root == await finish(handle)
        assert [] == await sandboxes_of(handle)

    async def test_that_was_given_up_and_is_done_late(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        """Its worker was killed before it could delete what it had made; the workflow does."""
        await self._faulty(fleet, tmp_path, "after", "raise")
        handle = await start(temporal_client, fleet.queue, Hold("faulty"))
        root = await handle.execute_update(CreateAndHold.root)
        client = LocalProvider().create_client()
        (made,) = await LocalProvider().find(client, {WORKFLOW_ID: handle.id})
        assert "2" == made.labels[ATTEMPT]

        late = await client.labelled({**made.labels, ATTEMPT: "1"}).create()

        assert {root, late.state.manifest.root} == set(await sandboxes_of(handle))
        await finish(handle)
        assert [] == await sandboxes_of(handle)

    @pytest.mark.parametrize("workers", [1, 2])
    async def test_that_is_slower_than_its_timeout(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path, workers: int
    ) -> None:
        """The worker that is still at it lives, and so does what it has made."""
        await self._faulty(fleet, tmp_path, "after", "hang")
        handle = await start(temporal_client, fleet.queue, Hold("faulty", timeout_s=6))
        await until(partial(has_one, handle))

        if workers == 2:
            await fleet.start()
        root = await handle.execute_update(CreateAndHold.root)

        assert [root] == await sandboxes_of(handle)
        assert root == await finish(handle)
        assert [] == await sandboxes_of(handle)

    @pytest.mark.parametrize("other_options", [False, True], ids=["same", "other"])
    async def test_whose_key_is_used_again(
        self, temporal_client: Client, other_options: bool
    ) -> None:
        async with running_worker(temporal_client, SameKeyTwice) as queue:
            handle = await temporal_client.start_workflow(
                SameKeyTwice.run, other_options, id=unique("key"), task_queue=queue
            )
            if other_options:
                with pytest.raises(WorkflowFailureError) as failed:
                    await handle.result()
                assert isinstance(failed.value.cause, ApplicationError)
                assert "CreateConflict" == failed.value.cause.type
            else:
                first, second = await handle.result()
                assert first == second


class TestNoSandboxForASetUp:
    async def test_that_fails_and_is_used_all_the_same(self, temporal_client: Client) -> None:
        """No other sandbox is made for the command, which nobody would delete."""
        async with running_worker(temporal_client, UsesWhatWasDiscarded) as queue:
            handle = await temporal_client.start_workflow(
                UsesWhatWasDiscarded.run, id=unique("discarded"), task_queue=queue
            )
            failed, refused = await handle.result()
            history = await handle.fetch_history()

        assert "SandboxLost" == refused != failed
        assert "local-sandbox_exec" not in scheduled_activities(history)

    async def test_that_fails(self, temporal_client: Client, fleet: Workers) -> None:
        """The error is the first one, not one of the clean-up."""
        await fleet.start()
        handle = await start(temporal_client, fleet.queue, Hold("faulty", spoilt=True))

        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()

        assert isinstance(failed.value.cause, ApplicationError)
        assert "WorkspaceArchiveWriteError" == failed.value.cause.type
        assert [] == await sandboxes_of(handle)

    @pytest.mark.parametrize("operation", ["create", "start"])
    async def test_that_is_cancelled(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path, operation: str
    ) -> None:
        fault = Fault(operation, "after", "hang", tmp_path / "hangs")
        await fleet.start(variables=fault.variable())
        handle = await start(temporal_client, fleet.queue, Hold("faulty"))
        await until(partial(has_one, handle))

        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()

        assert isinstance(failed.value.cause, CancelledError)
        assert [] == await sandboxes_of(handle)

    async def test_whose_workflow_is_terminated(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        """Its worker hears of it with a heartbeat."""
        fault = Fault("create", "after", "hang", tmp_path / "hangs")
        await fleet.start(variables=fault.variable())
        handle = await start(temporal_client, fleet.queue, Hold("faulty"))
        await until(partial(has_one, handle))

        await handle.terminate()

        await until(partial(has_none, handle))


class OddProvider(LocalProvider):
    """The local one, whose states are of a class that nobody else knows."""

    name = "odd"

    def labelled(self, client: LocalClient, labels: Mapping[str, str]) -> LocalClient:
        labelled = super().labelled(client, labels)

        class Odd(type(labelled)):  # type: ignore[misc]  # a class of that very client
            async def create(self, **settings: object) -> SandboxSession:
                session: SandboxSession = await super().create(**settings)
                session.state.type = "odd"
                return session

        labelled.__class__ = Odd
        return labelled


class TestNoSandboxForAnAnswer:
    """That the workflow cannot have."""

    async def _failure(self, client: Client, plugin: SandboxPlugin, provider: str) -> str | None:
        async with running_worker(client, CreateAndHold, plugins=[plugin]) as queue:
            handle = await start(client, queue, Hold(provider))
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()
            assert [] == await sandboxes_of(handle)
        assert isinstance(failed.value.cause, ApplicationError)
        return failed.value.cause.type

    async def test_because_it_does_not_know_the_class_of_the_state(
        self, temporal_client: Client
    ) -> None:
        plugin = SandboxPlugin(providers=[OddProvider()])

        assert "UnknownProvider" == await self._failure(temporal_client, plugin, "odd")

    async def test_because_it_is_too_large(self, temporal_client: Client) -> None:
        plugin = SandboxPlugin(max_file_bytes=250)

        assert "PayloadTooLarge" == await self._failure(temporal_client, plugin, "local")


class FullClient(LocalClient):
    """Has no room at first, and says for how long."""

    asked = False

    async def create(self, **arguments: Any) -> SandboxSession:  # noqa: ANN401 - the SDK's
        if not self.asked:
            self.asked = True
            raise AtCapacity("the backend is full", retry_after=timedelta(seconds=2.5))
        return await super().create(**arguments)

    def labelled(self, labels: Mapping[str, str]) -> FullClient:
        return self


class FullProvider(LocalProvider):
    name = "full"

    def create_client(self) -> FullClient:
        return FullClient()


FULL = "2 of 2 sandboxes of provider 'local' are in use on this worker"


class TestCapacity:
    async def test_a_sandbox_that_is_finished_during_the_count_counts(self) -> None:
        capacity = Capacity(limit=1)
        async with AsyncExitStack() as making:

            async def none_yet() -> set[str]:
                return set()

            async def none_when_asked() -> set[str]:
                await making.aclose()
                return set()

            await making.enter_async_context(capacity.reserved("local", "first", none_yet))
            with pytest.raises(AtCapacity):
                async with capacity.reserved("local", "second", none_when_asked):
                    pass

    async def test_a_create_waits_until_there_is_room(self, temporal_client: Client) -> None:
        plugin = SandboxPlugin(max_sandboxes={"local": 2})
        async with running_worker(temporal_client, CreateAndHold, plugins=[plugin]) as queue:
            handles = [await start(temporal_client, queue, Hold("local")) for _ in range(4)]
            roots = {
                handle.id: asyncio.ensure_future(handle.execute_update(CreateAndHold.root))
                for handle in handles
            }

            async def two_wait() -> bool:
                return 2 == sum([await waits(handle) for handle in handles])

            await until(two_wait)
            for _ in range(4):
                done, _pending = await asyncio.wait(
                    roots.values(), return_when=asyncio.FIRST_COMPLETED
                )
                existing = [root for handle in handles for root in await sandboxes_of(handle)]
                assert len(existing) <= 2
                ready = next(handle for handle in handles if roots.get(handle.id) in done)
                assert await roots.pop(ready.id) == await finish(ready)
            summaries = [summary for handle in handles for summary in await waited(handle)]

        assert len(summaries) >= 2
        assert {f'"waiting for room: {FULL}"'} == set(summaries)

    async def test_a_create_waits_as_long_as_the_backend_says(
        self, temporal_client: Client
    ) -> None:
        """Not only as long as a workflow waits by itself, a second at first."""
        plugin = SandboxPlugin(providers=[FullProvider()])
        async with running_worker(temporal_client, CreateAndHold, plugins=[plugin]) as queue:
            handle = await start(temporal_client, queue, Hold("full"))
            await finish(handle)
            (timer,) = [
                event.timer_started_event_attributes.start_to_fire_timeout.ToMilliseconds()
                for event in (await handle.fetch_history()).events
                if event.HasField("timer_started_event_attributes")
            ]

        assert 2500 == timer

    async def test_a_worker_in_the_place_of_a_killed_one_counts_its_sandboxes(
        self, temporal_client: Client, fleet: Workers
    ) -> None:
        """They are found by their labels, wherever the count of the dead one is."""
        first = await fleet.start()
        queue = fleet.queue
        handle, second = [await start(temporal_client, queue, Hold("local")) for _ in range(2)]
        await asyncio.gather(*(h.execute_update(CreateAndHold.root) for h in (handle, second)))
        first.kill()

        plugin = SandboxPlugin(max_sandboxes={"local": 2})
        async with running_worker(
            temporal_client, CreateAndHold, plugins=[plugin], task_queue=queue
        ):
            third = await start(temporal_client, queue, Hold("local"))
            await until(partial(waits, third))
            assert [] == await sandboxes_of(third)

            await finish(handle)
            assert await third.execute_update(CreateAndHold.root) == await finish(third)
            await finish(second)
