"""Whatever happens to workers, a command runs exactly once and does not outlive its caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faults.harness import Workers, completed, ended, line_of, running, workers
from support import attempts, unique
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.exceptions import CancelledError
from workflows.chaos import Count, Patience, RunCounted
from workflows.processes import Job, RunAndKeep, RunJob

from sandbox_core.worker.commands.host import states_on_host, stop_on_host
from sandbox_core.worker.heartbeats import LONGEST_S


@pytest.fixture
async def fleet(temporal_address: str, tmp_path: Path) -> AsyncIterator[Workers]:
    with workers(temporal_address, unique("faults"), RunJob, RunAndKeep, RunCounted) as started:
        yield started
    await stop_on_host(
        states_on_host(str(tmp_path))
    )  # Not every workflow here deletes its session.


async def start(client: Client, fleet: Workers, job: Job) -> WorkflowHandle[RunJob, list[object]]:
    return await client.start_workflow(RunJob.run, job, id=unique("job"), task_queue=fleet.queue)


def timeouts(history: WorkflowHistory) -> int:
    """Return how many activities have timed out."""
    return sum(
        event.HasField("activity_task_timed_out_event_attributes") for event in history.events
    )


COUNTED = "echo run >> counter; echo $$ > pid; seq 1 50000; sleep 3; echo done; exit 7"
WHOLE = "".join(f"{n}\n" for n in range(1, 50001)) + "done\n"


class TestKilledWorker:
    @pytest.mark.parametrize("process", [False, True], ids=["exec", "process"])
    async def test_the_command_runs_once_and_comes_back_whole(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path, process: bool
    ) -> None:
        """kill -9 in mid-command; the next worker attaches to the command that is running."""
        first = await fleet.start()
        job = Job(command=COUNTED, root=str(tmp_path), process=process)
        handle = await start(temporal_client, fleet, job)
        pid = int(await line_of(tmp_path / "pid"))

        first.kill()
        assert running(pid)
        await fleet.start()
        (tmp_path / "release").touch()
        result = await handle.result()

        assert [WHOLE, "", 7] == result
        assert "run\n" == (tmp_path / "counter").read_text()

    async def test_another_worker_of_the_host_takes_over_at_once(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        """It sees that the slot of the killed one is free, and does not wait for its queue."""
        first = await fleet.start()
        job = Job(command=COUNTED, root=str(tmp_path), heartbeat_s=1)
        handle = await start(temporal_client, fleet, job)
        await line_of(tmp_path / "pid")
        await fleet.start()

        first.kill()
        result = await handle.result()

        assert [WHOLE, "", 7] == result
        assert "run\n" == (tmp_path / "counter").read_text()
        assert {fleet.queue} == {
            event.activity_task_scheduled_event_attributes.task_queue.name
            for event in (await handle.fetch_history()).events
            if event.HasField("activity_task_scheduled_event_attributes")
        }

    async def test_a_command_that_ended_meanwhile_is_answered_from_its_record(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        first = await fleet.start()
        job = Job(command=f"{COUNTED.replace('sleep 3', 'sleep 0.5')}", root=str(tmp_path))
        handle = await start(temporal_client, fleet, job)
        pid = int(await line_of(tmp_path / "pid"))

        first.kill()
        await ended(pid)
        await fleet.start()
        result = await handle.result()

        assert [WHOLE, "", 7] == result
        assert "run\n" == (tmp_path / "counter").read_text()

    async def test_a_timeout_counts_from_the_start_of_the_command(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        first = await fleet.start()
        job = Job(command="echo run >> counter; echo $$ > pid; sleep 60", root=str(tmp_path))
        job.timeout = 4
        handle = await start(temporal_client, fleet, job)
        pid = int(await line_of(tmp_path / "pid"))

        first.kill()
        await fleet.start()
        result = await handle.result()

        assert ["timed out", 4] == result
        assert not running(pid)
        assert "run\n" == (tmp_path / "counter").read_text()

    async def test_its_command_is_soon_attached_to_by_another_worker(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        """When the heartbeat timeout and the schedule-to-start timeout have each passed once."""
        await fleet.start()
        await fleet.start()
        patience = Patience(heartbeat_s=2, schedule_to_start_s=2)
        command = "echo run >> counter; echo $$ > pid; until [ -e go ]; do sleep 0.05; done"
        handle = await temporal_client.start_workflow(
            RunCounted.run,
            Count(command=command, root=str(tmp_path), patience=patience),
            id=unique("count"),
            task_queue=fleet.queue,
        )
        pid = int(await line_of(tmp_path / "pid"))
        (pending,) = (await handle.describe()).raw_description.pending_activities

        for worker in fleet.running():
            if pending.last_worker_identity.startswith(f"{worker.pid}@"):
                worker.kill()
        await completed(handle, "local-sandbox_resume_session")
        assert running(pid)
        (tmp_path / "go").touch()
        await handle.result()

        history = await handle.fetch_history()
        assert max(attempts(history)) <= 2, "one heartbeat timeout"
        assert timeouts(history) <= 1, "one schedule-to-start timeout"
        assert "run\n" == (tmp_path / "counter").read_text()


class TestStoppedWorker:
    async def test_the_next_one_attaches_to_its_command(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        """A rolling restart ends no command."""
        first = await fleet.start()
        until_released = COUNTED.replace("sleep 3", "until [ -e release ]; do sleep 0.05; done")
        job = Job(command=until_released, root=str(tmp_path))
        handle = await start(temporal_client, fleet, job)
        pid = int(await line_of(tmp_path / "pid"))

        await asyncio.to_thread(first.stop)
        assert running(pid)
        await fleet.start()
        (tmp_path / "release").touch()
        result = await handle.result()

        assert [WHOLE, "", 7] == result
        assert "run\n" == (tmp_path / "counter").read_text()


class TestEnd:
    """Whatever ends the wait for a command ends its processes."""

    TREE = "(sleep 600 & echo $! > orphan); setsid sleep 600 & echo $! > daemon; sleep 600"

    async def _pids(self, root: Path) -> list[int]:
        return [int(await line_of(root / name)) for name in ("orphan", "daemon")]

    @pytest.mark.parametrize("kind", [RunJob, RunAndKeep], ids=["deletes", "keeps"])
    async def test_a_cancelled_workflow_leaves_no_process(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path, kind: type[RunJob]
    ) -> None:
        await fleet.start()
        handle = await temporal_client.start_workflow(
            kind.run,
            Job(command=self.TREE, root=str(tmp_path)),
            id=unique("job"),
            task_queue=fleet.queue,
        )
        pids = await self._pids(tmp_path)

        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()

        assert isinstance(failed.value.cause, CancelledError)
        for pid in pids:
            await asyncio.wait_for(ended(pid), timeout=10)

    async def test_a_cancelled_command_is_ended_at_once(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        """The server tells the worker, which need not ask first."""
        await fleet.start()
        job = Job(command=self.TREE, root=str(tmp_path), heartbeat_s=30)
        handle = await start(temporal_client, fleet, job)
        pids = await self._pids(tmp_path)

        await handle.cancel()

        for pid in pids:
            await asyncio.wait_for(ended(pid), timeout=LONGEST_S / 2)

    async def test_a_terminated_workflow_leaves_no_process(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        """Its worker hears of it with a heartbeat."""
        await fleet.start()
        handle = await start(
            temporal_client, fleet, Job(command=self.TREE, root=str(tmp_path), heartbeat_s=1)
        )
        pids = await self._pids(tmp_path)

        await handle.terminate()

        for pid in pids:
            await asyncio.wait_for(ended(pid), timeout=15)

    async def test_a_timeout_leaves_no_process(
        self, temporal_client: Client, fleet: Workers, tmp_path: Path
    ) -> None:
        await fleet.start()
        job = Job(command=self.TREE, root=str(tmp_path), timeout=1)
        handle = await start(temporal_client, fleet, job)
        pids = await self._pids(tmp_path)

        result = await handle.result()

        assert ["timed out", 1] == result
        assert [] == [pid for pid in pids if running(pid)]
