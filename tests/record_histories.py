"""Records the histories that `test_replay.py` replays: ``python tests/record_histories.py``.

Given names, it records only these. A history holds the host's name, as a part of its worker's
queue, and one scenario changes it; so it is run where that is nobody else's name::

    unshare --uts sh -c 'hostname recorder && python tests/record_histories.py'

Three are not made any more: ``accepted-before`` is of the time before a workflow checked arguments;
``resumed-on-another-worker`` of the time before a worker could take over a session from one that is
gone; ``memories-in-a-lent-session`` of the time before the agents that write memories ran in the
live session. ``given-up`` was recorded when a worker that stayed busy for as long as an operation
may wait was taken for one that is gone.

Record again only when a changed history is meant, and say why in the changelog: a workflow that was
started before the change will not survive it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from agents import ModelProvider
from faults.faulty import Fault
from faults.harness import line_of, workers
from parity.cases import write_skills
from support import running_worker, until
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from temporalio.worker import Worker
from workflows.creates import CreateAndHold, Hold
from workflows.fleet import KeepSession, Kept
from workflows.live_output import LiveJob, RunLive
from workflows.local_activities import Branches, RunLocally
from workflows.names import NamesOfFiles
from workflows.parity import Converse, Request, ScriptedModels
from workflows.processes import Job, RunJob
from workflows.sessions import CaughtErrors, EveryOperation, ResizeTerminal, StepByStep, Terminal
from workflows.storage import Refused
from workflows.wrong_types import AcceptedBefore

from sandbox_core.cli.demo import project_files
from sandbox_core.demo.script import ScriptedRepair
from sandbox_core.demo.workflow import RepairRequest, RepairWorkflow
from sandbox_core.reap_workflow import REAP_WORKFLOW, ReapProviders
from sandbox_core.testing import DevServer
from sandbox_core.testing.contract.files import tar_of
from sandbox_core.wire.messages import ReapRequest
from sandbox_core.worker import SandboxPlugin

HISTORIES = Path(__file__).parent / "histories"

WORKFLOWS = (
    AcceptedBefore,
    CaughtErrors,
    Converse,
    CreateAndHold,
    EveryOperation,
    KeepSession,
    NamesOfFiles,
    Refused,
    RepairWorkflow,
    ResizeTerminal,
    RunJob,
    RunLive,
    RunLocally,
    StepByStep,
    Terminal,
)
"""Those that histories are recorded of."""

_QUEUE = "recorded"
_WORKFLOWS = tuple(each for each in WORKFLOWS if each not in (Converse, RepairWorkflow))

Handle: TypeAlias = "WorkflowHandle[Any, Any]"


def agents_plugin(models: ModelProvider | None = None) -> OpenAIAgentsPlugin:
    """Return the plugin for scripted models, by default for the demo's."""
    return OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(start_to_close_timeout=timedelta(minutes=1)),
        model_provider=models or ScriptedRepair(),
    )


async def _start(client: Client, workflow: str, *args: object) -> Handle:
    return await client.start_workflow(workflow, args=args, id=workflow, task_queue=_QUEUE)


async def _every_operation(client: Client) -> Handle:
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
        handle = await _start(client, "EveryOperation", "local", tar_of(("inner.txt", b"inside")))
        await handle.result()
    return handle


async def _every_operation_and_skills(client: Client) -> Handle:
    with tempfile.TemporaryDirectory() as folder:
        skills = write_skills(Path(folder))
        plugins = [SandboxPlugin(local_sources=[skills])]
        async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE, plugins=plugins):
            handle = await _start(
                client, "EveryOperation", "local", tar_of(("inner.txt", b"inside")), str(skills)
            )
            await handle.result()
    return handle


async def _caught_errors(client: Client) -> Handle:
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
        handle = await _start(client, "CaughtErrors", "local")
        await handle.result()
    return handle


async def _taken_over(client: Client) -> Handle:
    """A worker takes the place of the one that held the session."""
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
        handle = await _start(client, "StepByStep", "local")
        await handle.execute_update("do", "echo edited > hello.txt")
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
        await handle.execute_update("do", "cat hello.txt")
        await handle.signal("finish")
        await handle.result()
    return handle


async def _given_up(client: Client) -> Handle:
    """A worker of another host opens the session, because nobody asks for its own worker's tasks.

    The operations before find that it is not there, and wait at its own worker's queue.
    """
    kept = Kept(schedule_to_start_s=1)
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
        handle = await _start(client, "KeepSession", kept)
        await handle.execute_update("do", "echo edited > hello.txt")
        await handle.execute_update("save")
    first = socket.gethostname()
    socket.sethostname("another")
    try:
        async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
            await handle.execute_update("do", "cat hello.txt")
            await handle.execute_update("restorations")
            await handle.signal("finish")
            await handle.result()
    finally:
        socket.sethostname(first)
    return handle


async def _busy(client: Client) -> Handle:
    """The session's worker is busy for longer than an operation waits; it answers that it lives."""
    kept = Kept(schedule_to_start_s=1)
    first = socket.gethostname()
    async with Worker(
        client,
        task_queue=_QUEUE,
        workflows=_WORKFLOWS,
        plugins=[SandboxPlugin()],
        max_concurrent_activities=1,
    ):
        handle = await _start(client, "KeepSession", kept)
        await handle.execute_update("do", "echo edited > hello.txt")
        socket.sethostname("another")
        try:
            other = await Client.connect(client.service_client.config.target_host)
            async with running_worker(other, *_WORKFLOWS, task_queue=_QUEUE, eager=False):
                each = [handle.execute_update("do", "sleep 2") for _ in range(5)]
                await asyncio.gather(*each)
                await handle.signal("finish")
                await handle.result()
        finally:
            socket.sethostname(first)
    return handle


async def _memories(client: Client) -> Handle:
    """The agents that write memories run after the one that they remember."""
    config = client.config()
    config["plugins"] = [agents_plugin(ScriptedModels()), SandboxPlugin()]
    async with running_worker(Client(**config), Converse, plugins=(), task_queue=_QUEUE):
        request = Request(case="memory of an unnamed run", directory=tempfile.gettempdir())
        handle = await _start(client, "Converse", request)
        await handle.result()
    return handle


async def _names(client: Client) -> Handle:
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
        handle = await _start(client, "NamesOfFiles", "local")
        await handle.result()
    return handle


async def _pinned(client: Client) -> Handle:
    """A terminal is of the process of its worker: what follows is asked at that worker's queue."""
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
        handle = await _start(client, "Terminal", "word")
        await handle.result()
    return handle


async def _live_output(client: Client, *, process: bool) -> Handle:
    command = "echo out; echo err >&2; sleep 0.6; echo more; sleep 0.6; exit 3"
    with tempfile.TemporaryDirectory() as root:
        async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
            job = LiveJob([command, "echo short", "sleep 60"], root, process, timeout=2)
            if process:
                job.commands.pop()
            handle = await _start(client, "RunWatched", job)
            await handle.result()
    return handle


async def _local_activities(client: Client) -> Handle:
    """Some short commands in two branches, and one that an activity awaits."""
    commands = [["echo a1", "sleep 0.2; echo a2"], ["sleep 0.1; echo b1", "sleep 1.5; echo b2"]]
    with tempfile.TemporaryDirectory() as root:
        async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
            task = Branches(root=root, commands=commands)
            handle = await _start(client, "RunLocally", task)
            await handle.result()
    return handle


async def _resized(client: Client) -> Handle:
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
        handle = await _start(client, "ResizeTerminal", "local")
        await handle.result()
    return handle


async def _waited_for_room(client: Client) -> Handle:
    """A timer for each time that the worker had as many sandboxes as it may."""
    plugins = [SandboxPlugin(max_sandboxes={"local": 1})]
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE, plugins=plugins):
        first = await client.start_workflow(
            "CreateAndHold", Hold("local"), id="holds", task_queue=_QUEUE
        )
        await first.execute_update("root")
        handle = await _start(client, "CreateAndHold", Hold("local"))
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.HasField("timer_started_event_attributes"):
                break
        await first.signal("finish")
        await handle.execute_update("root")
        await handle.signal("finish")
        await handle.result()
        await first.result()
    return handle


async def _timed_out(client: Client) -> Handle:
    """A worker is killed in the middle of a command, and the one attempt at it has its timeout."""
    address = client.service_client.config.target_host
    with tempfile.TemporaryDirectory() as folder, workers(address, _QUEUE, KeepSession) as started:
        worker, begun = await started.start(), Path(folder) / "begun"
        handle = await _start(client, "KeepSession", Kept(heartbeat_s=1, attempts=1))
        doing = asyncio.create_task(handle.execute_update("do", f"echo begun >{begun}; sleep 30"))
        await line_of(begun)
        worker.kill()
        async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
            with suppress(WorkflowUpdateFailedError):
                await doing
            await handle.signal("finish")
            await handle.result()
    return handle


async def _cancelled(client: Client) -> Handle:
    """A workflow is cancelled in the middle of a command."""
    with tempfile.TemporaryDirectory() as root:
        async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
            handle = await _start(client, "RunJob", Job("echo begun > begun; sleep 30", root=root))
            await line_of(Path(root) / "begun")
            await handle.cancel()
            with suppress(WorkflowFailureError):
                await handle.result()
    return handle


async def _create_cancelled(client: Client) -> Handle:
    """A workflow is cancelled in the middle of a create, and has what was made deleted."""
    address = client.service_client.config.target_host
    with (
        tempfile.TemporaryDirectory() as folder,
        workers(address, _QUEUE, CreateAndHold) as started,
    ):
        fault = Fault("create", "after", "hang", Path(folder) / "hangs")
        await started.start(variables=fault.variable())
        handle = await _start(client, "CreateAndHold", Hold("faulty"))
        await until(partial(asyncio.to_thread, (Path(folder) / "hangs").exists))
        await handle.cancel()
        with suppress(WorkflowFailureError):
            await handle.result()
    return handle


async def _refused(client: Client) -> Handle:
    """A request is larger than the worker allows."""
    plugins = [SandboxPlugin(max_file_bytes=3000)]
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE, plugins=plugins):
        handle = await _start(client, "Refused", "local", 5000)
        await handle.result()
    return handle


async def _reap(client: Client) -> Handle:
    asked = ReapProviders(providers=("local",), reap=ReapRequest(older_than_s=0))
    async with running_worker(client, *_WORKFLOWS, task_queue=_QUEUE):
        handle = await _start(client, REAP_WORKFLOW, asked.dump())
        await handle.result()
    return handle


async def _demo(client: Client) -> Handle:
    config = client.config()
    config["plugins"] = [agents_plugin(), SandboxPlugin()]
    async with running_worker(Client(**config), RepairWorkflow, plugins=(), task_queue=_QUEUE):
        request = RepairRequest(provider="local", files=project_files())
        handle = await _start(client, "RepairWorkflow", request)
        await handle.result()
    return handle


_SCENARIOS: dict[str, Callable[[Client], Awaitable[Handle]]] = {
    "busy": _busy,
    "cancelled": _cancelled,
    "caught-errors": _caught_errors,
    "create-cancelled": _create_cancelled,
    "demo": _demo,
    "every-operation": _every_operation,
    "every-operation-and-skills": _every_operation_and_skills,
    "given-up": _given_up,
    "memories": _memories,
    "names": _names,
    "pinned": _pinned,
    "reap": _reap,
    "refused": _refused,
    "local-activities": _local_activities,
    "live-output": partial(_live_output, process=False),
    "live-output-of-a-process": partial(_live_output, process=True),
    "resized": _resized,
    "taken-over": _taken_over,
    "timed-out": _timed_out,
    "waited-for-room": _waited_for_room,
}


async def _main(names: list[str]) -> None:
    with DevServer() as server:
        # The identity is a part of the history; the default is this process and this host.
        client = await Client.connect(server.address, identity="recorder")
        for name in names or _SCENARIOS:
            history = await (await _SCENARIOS[name](client)).fetch_history()
            # Of a stack trace the replay takes no notice, and it names files of this machine.
            text = re.sub(r'"stackTrace": "(?:[^"\\]|\\.)*"', '"stackTrace": ""', history.to_json())
            (HISTORIES / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
