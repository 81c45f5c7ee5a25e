"""Whatever happens to the Temporal server, a command runs exactly once and its result is complete.

The server keeps its workflows in a file (``--db-filename``); it is killed with SIGKILL and started
again on the same port.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from faults.harness import Workers, ended, line_of, result_of, running, workers
from support import attempts, unique
from temporalio.client import Client
from workflows.processes import Job, RunJob

from sandbox_core.testing import DevServer
from sandbox_core.worker.commands.host import states_on_host, stop_on_host

LINES = 50_000
WHOLE = "".join(f"{n}\n" for n in range(1, LINES + 1)) + "done\n"


def counted(root: Path, *, process: bool = False) -> Job:
    """Return a job whose command counts its runs, and goes on until it is released."""
    released = "until [ -e go ]; do sleep 0.05; done"
    command = f"echo run >> counter; echo $$ > pid; seq {LINES}; {released}; echo done; exit 7"
    return Job(command=command, root=str(root), process=process)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DevServer]:
    with DevServer(db_file=tmp_path / "temporal.db") as started:
        yield started
        started.kill()  # Which is quicker.


@pytest.fixture
async def fleet(server: DevServer, root: Path) -> AsyncIterator[Workers]:
    with workers(server.address, unique("faults"), RunJob) as started:
        yield started
    await stop_on_host(states_on_host(str(root)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The workspace."""
    root = tmp_path / "root"
    root.mkdir()
    return root


class TestKilledServer:
    @pytest.mark.parametrize("process", [False, True], ids=["exec", "process"])
    async def test_a_running_command_does_not_notice(
        self, server: DevServer, fleet: Workers, root: Path, process: bool
    ) -> None:
        """Down and up again in mid-command; the same attempt brings the result."""
        client = await Client.connect(server.address)
        await fleet.start()
        job = counted(root, process=process)
        handle = await client.start_workflow(
            RunJob.run, job, id=unique("job"), task_queue=fleet.queue
        )
        pid = int(await line_of(root / "pid"))

        server.kill()
        await asyncio.to_thread(server.start)
        assert running(pid)
        (root / "go").touch()
        result = await result_of(handle)

        assert [WHOLE, "", 7] == result
        assert "run\n" == (root / "counter").read_text()

    async def test_a_command_that_ended_meanwhile_is_not_run_again(
        self, server: DevServer, fleet: Workers, root: Path
    ) -> None:
        """Its worker has nobody to tell the result to until the server is back."""
        client = await Client.connect(server.address)
        await fleet.start()
        handle = await client.start_workflow(
            RunJob.run, counted(root), id=unique("job"), task_queue=fleet.queue
        )
        pid = int(await line_of(root / "pid"))

        server.kill()
        (root / "go").touch()
        await ended(pid)
        await asyncio.to_thread(server.start)
        result = await result_of(handle)

        assert [WHOLE, "", 7] == result
        assert "run\n" == (root / "counter").read_text()

    async def test_a_running_command_survives_its_worker_as_well(
        self, server: DevServer, fleet: Workers, root: Path
    ) -> None:
        """All that is left is the server's file and the command; another attempt finds it."""
        client = await Client.connect(server.address)
        first = await fleet.start()
        handle = await client.start_workflow(
            RunJob.run, counted(root), id=unique("job"), task_queue=fleet.queue
        )
        pid = int(await line_of(root / "pid"))

        server.kill()
        first.kill()
        await asyncio.to_thread(server.start)
        await fleet.start()
        assert running(pid)
        (root / "go").touch()
        result = await result_of(handle)

        assert [WHOLE, "", 7] == result
        assert "run\n" == (root / "counter").read_text()
        assert max(attempts(await handle.fetch_history())) > 1
