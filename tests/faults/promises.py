"""What sandbox-core promises on every backend, while workers are killed with SIGKILL.

A plugin's tests subclass these classes, and have a fixture `backend`.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack
from functools import partial
from typing import Any

import pytest
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from faults.faulty import OF_VARIABLE, Fault
from faults.harness import Workers, completed, workers
from faults.keeping import do, end, keep
from support import attempts, running_worker, scheduled_activities, unique, until
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError, CancelledError
from workflows.creates import CreateAndHold, Hold
from workflows.fleet import KeepSession, Kept
from workflows.names import EXPECTED, NamesOfFiles
from workflows.owners import OwnsSandbox
from workflows.processes import Job, RunAndKeep, RunJob
from workflows.sessions import DeleteLater, ResumeDeleted

from sandbox_core.providers.registry import Provider
from sandbox_core.wire.messages import ReapRequest, ReapResponse
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.reaping.reaper import as_reapable, reap
from sandbox_core.worker.sessions.labels import WORKFLOW_ID, Namespace

Handle = WorkflowHandle[Any, Any]

ROOT = "/workspace"


class Backend(abc.ABC):
    """A provider's backend, looked at and changed without a worker."""

    def __init__(self, provider: Provider, client: BaseSandboxClient[Any]) -> None:
        reapable = as_reapable(provider)
        assert reapable is not None
        self.name, self.provider, self.client = provider.name, reapable, client

    @abc.abstractmethod
    async def run(self, sandbox_id: str, script: str) -> str:
        """Run a shell script in a sandbox, and return its output."""

    async def sandboxes_of(self, handle: Handle) -> list[str]:
        """Return the ids of a workflow's sandboxes."""
        found = await self.provider.find(self.client, {WORKFLOW_ID: handle.id})
        return [sandbox.sandbox_id for sandbox in found]

    async def sandbox_of(self, handle: Handle) -> str:
        """Return the id of a workflow's one sandbox."""
        (sandbox_id,) = await self.sandboxes_of(handle)
        return sandbox_id

    async def has_any(self, handle: Handle) -> bool:
        return bool(await self.sandboxes_of(handle))


class WatchedBackend(Backend):
    """One whose processes and creates can be seen and stopped."""

    @abc.abstractmethod
    async def commands(self, sandbox_id: str) -> list[str]:
        """Return what runs in a sandbox, without what the backend itself runs there."""

    @abc.abstractmethod
    def stalled(self) -> AbstractContextManager[None]:
        """Have no create come to its end for the duration; those that were begun do so later."""

    async def is_idle(self, sandbox_id: str) -> bool:
        return not await self.commands(sandbox_id)

    async def started(self, handle: Handle) -> str:
        """Return the sandbox of a workflow as soon as the command in it has made `started`."""
        # What a create has made that is attempted once more does not stay.
        await completed(handle, f"{self.name}-sandbox_create_session")
        sandbox_id = await self.sandbox_of(handle)
        await self.run(sandbox_id, f"until [ -s {ROOT}/started ]; do sleep 0.05; done")
        return sandbox_id


# A whole output of 50,000 lines, a last line that says how often it was run, and an exit code.
COUNTED = """\
echo run >> counter
seq 1 50000
echo > started
until [ -e go ]; do sleep 0.05; done
wc -l < counter
exit 7
"""
WHOLE = "".join(f"{n}\n" for n in range(1, 50001))

TREE = "true; (sleep 600; true) & setsid sleep 600 & echo > started; sleep 600"


class CommandPromises:
    """A command runs exactly once, and none outlives what asked for it."""

    @pytest.fixture
    def fleet(self, temporal_address: str, backend: WatchedBackend) -> Iterator[Workers]:
        with workers(temporal_address, unique("commands"), RunJob, RunAndKeep) as started:
            yield started

    async def _start(
        self, client: Client, queue: str, kind: type[RunJob], job: Job
    ) -> WorkflowHandle[RunJob, list[object]]:
        return await client.start_workflow(kind.run, job, id=unique("job"), task_queue=queue)

    @pytest.mark.parametrize("process", [False, True], ids=["exec", "process"])
    async def test_runs_once_and_comes_back_whole_after_kill_9(
        self, temporal_client: Client, fleet: Workers, backend: WatchedBackend, process: bool
    ) -> None:
        """It runs until the next worker has attached to it."""
        first = await fleet.start()
        job = Job(COUNTED, ROOT, process=process, heartbeat_s=1, provider=backend.name)
        handle = await self._start(temporal_client, fleet.queue, RunJob, job)
        sandbox_id = await backend.started(handle)

        first.kill()
        assert await backend.commands(sandbox_id)
        await fleet.start()
        await completed(handle, f"{backend.name}-sandbox_resume_session")
        await backend.run(sandbox_id, f"echo > {ROOT}/go")
        stdout, stderr, exit_code = await handle.result()

        assert (f"{WHOLE}1\n", "", 7) == (stdout, stderr, exit_code)
        assert [] == await backend.sandboxes_of(handle)

    async def test_that_times_out_leaves_no_process(
        self, temporal_client: Client, fleet: Workers, backend: WatchedBackend
    ) -> None:
        """Its worker is dead, and so is the call that the backend has started it in."""
        first = await fleet.start()
        job = Job(TREE, ROOT, timeout=4, heartbeat_s=1, provider=backend.name)
        handle = await self._start(temporal_client, fleet.queue, RunAndKeep, job)
        sandbox_id = await backend.started(handle)
        first.kill()
        running = await backend.commands(sandbox_id)
        await fleet.start()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()

        assert isinstance(failed.value.cause, ApplicationError)
        assert "command timed out" == failed.value.cause.message
        assert len(running) >= 3
        assert [] == await backend.commands(sandbox_id)

    async def test_that_is_cancelled_leaves_no_process(
        self, temporal_client: Client, backend: WatchedBackend
    ) -> None:
        job = Job(TREE, ROOT, heartbeat_s=1, provider=backend.name)
        async with running_worker(temporal_client, RunAndKeep) as queue:
            handle = await self._start(temporal_client, queue, RunAndKeep, job)
            sandbox_id = await backend.started(handle)
            running = await backend.commands(sandbox_id)
            await handle.cancel()
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()
            await until(partial(backend.is_idle, sandbox_id))

        assert isinstance(failed.value.cause, CancelledError)
        assert len(running) >= 3


class CreatePromises:
    """One sandbox for a create, none for one that fails, and no more than a worker may have."""

    @pytest.fixture
    def fleet(self, temporal_address: str, backend: WatchedBackend) -> Iterator[Workers]:
        with workers(temporal_address, unique("creates"), CreateAndHold) as started:
            yield started

    @pytest.fixture
    def fault_in(
        self,
        backend: WatchedBackend,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> Callable[[str], Fault]:
        """Return what makes the fault that happens after the backend has made a sandbox."""
        monkeypatch.setenv(OF_VARIABLE, backend.name)
        marker = tmp_path_factory.mktemp("fault") / "happened"
        return lambda action: Fault("create", "after", action, marker)

    async def _start(self, client: Client, queue: str, hold: Hold) -> Handle:
        return await client.start_workflow(
            CreateAndHold.run, hold, id=unique("create"), task_queue=queue
        )

    async def _ends_with_one(self, backend: WatchedBackend, handle: Handle) -> str:
        """Return the one sandbox that the workflow has held; in the end there is none."""
        await handle.execute_update(CreateAndHold.root)
        held = await backend.sandboxes_of(handle)
        await handle.signal(CreateAndHold.finish)
        await handle.result()

        assert [] == await backend.sandboxes_of(handle)
        (sandbox_id,) = held
        return sandbox_id

    @pytest.mark.parametrize("action", ["kill", "raise"], ids=["worker killed", "answer lost"])
    async def test_one_sandbox_is_left_of_two_attempts(
        self,
        temporal_client: Client,
        fleet: Workers,
        backend: WatchedBackend,
        fault_in: Callable[[str], Fault],
        action: str,
    ) -> None:
        """The backend has made one at the first, and the workflow has not heard of it."""
        first = await fleet.start(variables=fault_in(action).variable())
        handle = await self._start(temporal_client, fleet.queue, Hold("faulty"))
        if action == "kill":
            await asyncio.to_thread(first.wait)
            assert await backend.sandboxes_of(handle)
            await fleet.start()
        await self._ends_with_one(backend, handle)

        assert 2 == attempts(await handle.fetch_history())[0]

    async def test_one_sandbox_is_left_of_an_attempt_that_was_too_slow(
        self, temporal_client: Client, backend: WatchedBackend
    ) -> None:
        """It comes to its end while the next one is being made, at the same worker."""
        async with running_worker(temporal_client, CreateAndHold) as queue:
            # From here on the worker has a connection to the backend.
            earlier = await self._start(temporal_client, queue, Hold(backend.name))
            await self._ends_with_one(backend, earlier)
            with backend.stalled():
                handle = await self._start(temporal_client, queue, Hold(backend.name, timeout_s=3))
                await until(partial(_is_attempted_again, handle))
            await self._ends_with_one(backend, handle)

    async def test_that_is_cancelled_leaves_none(
        self,
        temporal_client: Client,
        fleet: Workers,
        backend: WatchedBackend,
        fault_in: Callable[[str], Fault],
    ) -> None:
        await fleet.start(variables=fault_in("hang").variable())
        handle = await self._start(temporal_client, fleet.queue, Hold("faulty"))
        await until(partial(backend.has_any, handle))
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()

        assert isinstance(failed.value.cause, CancelledError)
        assert [] == await backend.sandboxes_of(handle)

    async def test_whose_first_start_fails_leaves_none(
        self, temporal_client: Client, backend: WatchedBackend
    ) -> None:
        async with running_worker(temporal_client, CreateAndHold) as queue:
            hold = Hold(backend.name, spoilt=True)
            handle = await self._start(temporal_client, queue, hold)
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()
            left = await backend.sandboxes_of(handle)

        assert isinstance(failed.value.cause, ApplicationError)
        assert f"{ROOT}/file" in failed.value.cause.message
        assert [] == left

    async def test_waits_until_there_is_room(
        self, temporal_client: Client, backend: WatchedBackend
    ) -> None:
        plugin = SandboxPlugin(max_sandboxes={backend.name: 1})
        async with running_worker(temporal_client, CreateAndHold, plugins=[plugin]) as queue:
            first = await self._start(temporal_client, queue, Hold(backend.name))
            await first.execute_update(CreateAndHold.root)
            second = await self._start(temporal_client, queue, Hold(backend.name))
            await until(partial(_waits_for_room, second))
            none = await backend.sandboxes_of(second)
            await self._ends_with_one(backend, first)
            await self._ends_with_one(backend, second)

        assert [] == none


async def _is_attempted_again(handle: Handle) -> bool:
    pending = (await handle.describe()).raw_description.pending_activities
    return any(activity.attempt > 1 for activity in pending)


async def _waits_for_room(handle: Handle) -> bool:
    return any(
        b"waiting for room: 1 of 1 " in event.user_metadata.summary.data
        for event in (await handle.fetch_history()).events
        if event.HasField("timer_started_event_attributes")
    )


class _Keeping:
    """Workflows that keep a session, whose manifest has a file, and do as they are told with it."""

    @pytest.fixture
    def fleet(self, temporal_address: str, backend: Backend) -> Iterator[Workers]:
        with workers(temporal_address, unique("kept"), KeepSession) as started:
            yield started

    async def keep(self, client: Client, queue: str, backend: Backend) -> Handle:
        return await keep(client, queue, Kept(provider=backend.name, heartbeat_s=1))


class WorkspacePromises(_Keeping):
    """A workspace is what it was."""

    async def test_its_files_are_told_apart_moved_and_created_by_name(
        self, temporal_client: Client, fleet: Workers, backend: Backend
    ) -> None:
        """Whether the installed Agents SDK has methods for it or not."""
        async with running_worker(temporal_client, NamesOfFiles) as queue:
            said = await temporal_client.execute_workflow(
                NamesOfFiles.run, backend.name, id=unique("names"), task_queue=queue
            )

        assert EXPECTED == said

    @pytest.mark.parametrize("killed", [True, False], ids=["kill -9", "shutdown"])
    async def test_an_edit_of_a_manifest_file_survives_its_worker(
        self, temporal_client: Client, fleet: Workers, backend: Backend, killed: bool
    ) -> None:
        """Also when the session is started once more, as the SDK does, and saved."""
        first = await fleet.start()
        handle = await self.keep(temporal_client, fleet.queue, backend)
        before = await do(handle, "cat hello.txt; echo edited > hello.txt")

        first.kill() if killed else first.stop()
        await fleet.start()
        await handle.execute_update(KeepSession.start)
        edited = await do(handle, "cat hello.txt")
        await handle.execute_update(KeepSession.save)
        await handle.execute_update(KeepSession.start)
        saved = await do(handle, "cat hello.txt")
        restored = await handle.execute_update(KeepSession.restorations)
        await end(handle)

        assert ["hello\n", "edited\n", "edited\n"] == [before, edited, saved]
        assert [] == restored
        assert [] == await backend.sandboxes_of(handle)


@pytest.mark.parametrize("held", [True, False], ids=["held", "after kill -9"])
class LostPromises(_Keeping):
    """Somebody deletes the sandbox: that is never passed over in silence."""

    @pytest.fixture
    async def handle(
        self, temporal_client: Client, fleet: Workers, backend: Backend, held: bool
    ) -> AsyncIterator[Handle]:
        """A session whose worker stays, or is killed before its sandbox is deleted."""
        async with AsyncExitStack() as stack:
            if held:
                worker = running_worker(temporal_client, KeepSession, task_queue=fleet.queue)
                await stack.enter_async_context(worker)
            else:
                await fleet.start()
            handle = await self.keep(temporal_client, fleet.queue, backend)
            yield handle
            await end(handle)

    async def _lose(self, handle: Handle, fleet: Workers, backend: Backend) -> str:
        """Delete the sandbox, and return its id."""
        lost = await backend.sandbox_of(handle)
        for worker in fleet.running():
            worker.kill()
            await fleet.start()
        await backend.provider.destroy(backend.client, lost)
        return lost

    async def test_it_is_restored_from_its_snapshot_and_the_workflow_is_told(
        self, handle: Handle, fleet: Workers, backend: Backend
    ) -> None:
        await do(handle, "echo saved > hello.txt")
        await handle.execute_update(KeepSession.save)
        await do(handle, "echo later > hello.txt")
        lost = await self._lose(handle, fleet, backend)

        assert "saved\n" == await handle.execute_update(KeepSession.read)
        now = await backend.sandbox_of(handle)
        assert [[lost, now]] == await handle.execute_update(KeepSession.restorations)

    async def test_without_a_snapshot_the_error_names_provider_and_sandbox(
        self, handle: Handle, fleet: Workers, backend: Backend
    ) -> None:
        """Time and again: nothing makes an empty workspace of it."""
        await do(handle, "echo edited > hello.txt")
        lost = await self._lose(handle, fleet, backend)

        for _ in range(2):
            with pytest.raises(WorkflowUpdateFailedError) as failed:
                await do(handle, "cat hello.txt")
            assert isinstance(failed.value.cause, ApplicationError)
            assert "SandboxLost" == failed.value.cause.type
            message = failed.value.cause.message
            assert message.startswith(f"sandbox {lost} of provider {backend.name!r} ")
            assert " does not exist any more" in message
        assert [] == await backend.sandboxes_of(handle)


class DeletePromises:
    """A sandbox is deleted by its id."""

    async def test_by_a_worker_that_never_held_the_session_opens_none(
        self, temporal_client: Client, backend: Backend
    ) -> None:
        """Nor is the session resumed in the end."""
        queue = unique("queue")
        async with running_worker(temporal_client, DeleteLater, task_queue=queue):
            handle = await temporal_client.start_workflow(
                DeleteLater.run, backend.name, id=unique("delete"), task_queue=queue
            )
            await handle.execute_update(DeleteLater.created)
        async with running_worker(temporal_client, DeleteLater, task_queue=queue):
            await handle.signal(DeleteLater.delete)
            await handle.result()

        assert [] == await backend.sandboxes_of(handle)
        # The answer to the first is that the session is not open; the second has its state.
        assert [
            f"{backend.name}-sandbox_{operation}"
            for operation in ("create_session", "delete_session", "delete_session")
        ] == scheduled_activities(await handle.fetch_history())

    async def test_a_state_that_was_saved_before_makes_a_fresh_one(
        self, temporal_client: Client, backend: Backend
    ) -> None:
        """As in the SDK, whether the backend makes it at the resume or at the start."""
        async with running_worker(temporal_client, ResumeDeleted) as queue:
            handle = await temporal_client.start_workflow(
                ResumeDeleted.run, backend.name, id=unique("deleted"), task_queue=queue
            )
            assert "empty\n" == await handle.result()
        assert [] == await backend.sandboxes_of(handle)


class OrphanPromises:
    """What a closed workflow leaves is deleted, and nothing of an open one."""

    @pytest.fixture
    def fleet(self, temporal_address: str, backend: Backend) -> Iterator[Workers]:
        with workers(temporal_address, unique("owners"), OwnsSandbox) as started:
            yield started

    async def _owner(self, client: Client, fleet: Workers, backend: Backend) -> Handle:
        handle = await client.start_workflow(
            OwnsSandbox.run, args=[backend.name], id=unique("owner"), task_queue=fleet.queue
        )
        await handle.execute_update(OwnsSandbox.sandbox_state)
        return handle

    async def _reap(self, client: Client, backend: Backend, *, delete: bool) -> ReapResponse:
        namespace = await Namespace.of(client)
        request = ReapRequest(older_than_s=0, delete=delete)
        return await reap(backend.provider, backend.client, client, namespace, request)

    async def test_only_the_sandbox_of_a_terminated_workflow_is_reaped(
        self, temporal_client: Client, fleet: Workers, backend: Backend
    ) -> None:
        """Their worker is dead; a dry run finds it and deletes nothing."""
        worker = await fleet.start()
        living, terminated = [await self._owner(temporal_client, fleet, backend) for _ in range(2)]
        kept, orphan = [await backend.sandbox_of(handle) for handle in (living, terminated)]
        worker.kill()
        await terminated.terminate()

        dry = await self._reap(temporal_client, backend, delete=False)
        still_there = await backend.sandboxes_of(terminated)
        wet = await self._reap(temporal_client, backend, delete=True)
        left = [await backend.sandboxes_of(handle) for handle in (living, terminated)]
        await living.terminate()

        assert [(orphan, "terminated", "orphan")] == _outcomes(dry)
        assert [orphan] == still_there
        assert [(orphan, "terminated", "deleted")] == _outcomes(wet)
        assert (1, 1) == (dry.living, wet.living)
        assert [[kept], []] == left


def _outcomes(answer: ReapResponse) -> list[tuple[str, str, str]]:
    return [(found.sandbox_id, found.owner, found.outcome) for found in answer.sandboxes]
