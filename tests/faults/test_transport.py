"""A command runs exactly once, wherever a request or an answer is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from faults.faulty import Fault
from faults.harness import Workers, completed, line_of, workers
from faults.proxy import Loss, Proxy, proxy
from support import attempts, scheduled_activities, unique
from temporalio.client import Client, WorkflowHandle
from workflows.chaos import Count, RunCounted
from workflows.processes import Job, RunJob

from sandbox_core.worker.commands.host import states_on_host, stop_on_host

# The result is recognised on its way by a word that is not in the command.
COUNTED = "echo run >> counter; echo result-$((40 + 2))"
RELEASED = f"echo $$ > pid; until [ -e go ]; do sleep 0.05; done; {COUNTED}"
RESULT = "result-42\n"


@pytest.fixture
async def fleet(temporal_address: str, tmp_path: Path) -> AsyncIterator[Workers]:
    with workers(temporal_address, unique("faults"), RunCounted, RunJob) as started:
        yield started
    await stop_on_host(states_on_host(str(tmp_path)))


@pytest.fixture
async def between(temporal_address: str) -> AsyncIterator[Proxy]:
    """A proxy between a worker and the server."""
    async with proxy(temporal_address) as started:
        yield started


class TestResultOnTheWay:
    """Between the worker that ran the command and the server."""

    async def _start(
        self, client: Client, fleet: Workers, root: Path, command: str = COUNTED
    ) -> WorkflowHandle[RunCounted, str]:
        count = Count(command=command, root=str(root))
        return await client.start_workflow(
            RunCounted.run,
            count,
            id=unique("count"),
            task_queue=fleet.queue,
            # The next task of the workflow may be lost with the answer.
            task_timeout=timedelta(seconds=2),
        )

    async def test_when_it_is_lost_the_worker_sends_it_again(
        self, temporal_client: Client, fleet: Workers, between: Proxy, tmp_path: Path
    ) -> None:
        await fleet.start(address=between.address)
        between.lose(Loss.REQUEST, RESULT.strip().encode())

        handle = await self._start(temporal_client, fleet, tmp_path)
        result = await handle.result()

        assert between.lost.is_set()
        assert RESULT == result
        assert "run\n" == (tmp_path / "counter").read_text()

    async def test_when_the_server_has_it_and_the_worker_never_learns(
        self, temporal_client: Client, fleet: Workers, between: Proxy, tmp_path: Path
    ) -> None:
        """It sends it again, and is told that nobody waits for it any more."""
        await fleet.start(address=between.address)
        between.lose(Loss.ANSWER, RESULT.strip().encode())

        handle = await self._start(temporal_client, fleet, tmp_path)
        await between.lost.wait()
        await completed(handle, "local-sandbox_exec")
        between.reset()
        result = await handle.result()

        assert RESULT == result
        assert "run\n" == (tmp_path / "counter").read_text()
        assert 1 == scheduled_activities(await handle.fetch_history()).count("local-sandbox_exec")

    async def test_when_its_worker_is_cut_off_another_one_finds_the_record(
        self, temporal_client: Client, fleet: Workers, between: Proxy, tmp_path: Path
    ) -> None:
        await fleet.start(address=between.address)
        between.lose(Loss.EVERYTHING, RESULT.strip().encode())

        handle = await self._start(temporal_client, fleet, tmp_path, RELEASED)
        await line_of(tmp_path / "pid")
        await fleet.start()
        (tmp_path / "go").touch()
        result = await handle.result()

        assert RESULT == result
        assert between.lost.is_set()
        assert "run\n" == (tmp_path / "counter").read_text()
        assert max(attempts(await handle.fetch_history())) > 1


class TestFailingProvider:
    """Between the worker and the backend of its provider."""

    async def _run(
        self, client: Client, fleet: Workers, root: Path
    ) -> WorkflowHandle[RunJob, list[object]]:
        job = Job(command=COUNTED, root=str(root), provider="faulty")
        return await client.start_workflow(
            RunJob.run, job, id=unique("job"), task_queue=fleet.queue
        )

    @pytest.mark.parametrize(("operation", "moment"), [("start", "after"), ("exec", "after")])
    async def test_a_worker_that_dies_there_is_replaced(
        self,
        temporal_client: Client,
        fleet: Workers,
        tmp_path: Path,
        operation: str,
        moment: str,
    ) -> None:
        """kill -9 at that very point."""
        fault = Fault(operation, moment, "kill", tmp_path / "failed")
        first = await fleet.start(variables=fault.variable())

        handle = await self._run(temporal_client, fleet, tmp_path)
        assert -9 == await asyncio.to_thread(first.wait)
        await fleet.start(variables=fault.variable())
        result = await handle.result()

        assert [RESULT, "", 0] == result
        assert "run\n" == (tmp_path / "counter").read_text()

    @pytest.mark.parametrize(("operation", "moment"), [("exec", "during"), ("exec", "after")])
    async def test_a_call_that_fails_there_is_repeated(
        self,
        temporal_client: Client,
        fleet: Workers,
        tmp_path: Path,
        operation: str,
        moment: str,
    ) -> None:
        """The connection to the backend breaks at that very point."""
        fault = Fault(operation, moment, "raise", tmp_path / "failed")
        await fleet.start(variables=fault.variable())

        handle = await self._run(temporal_client, fleet, tmp_path)
        result = await handle.result()

        assert fault.marker.exists()
        assert [RESULT, "", 0] == result
        assert "run\n" == (tmp_path / "counter").read_text()
