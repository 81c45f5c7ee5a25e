"""`sandbox-core demo --chaos`: kills a worker mid-command and shows that the command survives."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from rich.console import Console
from rich.rule import Rule
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from sandbox_core.cli.watching import (
    activity_end,
    choose_provider,
    give_up,
    sandboxes_left,
    until_interrupted,
    word,
)
from sandbox_core.demo.counting import COMMAND, HEARTBEAT_TIMEOUT, LINES, CountResult, CountRuns
from sandbox_core.providers.discovery import REQUIRED_VARIABLE
from sandbox_core.providers.registry import Provider
from sandbox_core.testing import DevServer
from sandbox_core.wire.agents_models import load_state
from sandbox_core.wire.naming import activity_name
from sandbox_core.wire.operations import EXEC

_TASK_QUEUE = "sandbox-demo"
_STOPPED_WITHIN_S = 10.0
_WHOLE = "".join(f"line {n}\n" for n in range(1, LINES + 1))


async def run_chaos(*, provider: str | None, keep: bool) -> int:
    """Run the demo and return 0 if the command ran once and no sandbox is left, else 1.

    Raises:
        ProviderError: The provider is not installed, or cannot be loaded.
        RuntimeError: A worker failed; the message says why.
        FileNotFoundError: A program that the demo needs is not installed.
    """
    console = Console(soft_wrap=True, highlight=False)
    chosen, told = await choose_provider(provider)
    console.print(told)
    os.environ[REQUIRED_VARIABLE] = chosen.name  # The workers need no other provider.
    with DevServer(ui_port=0) as server:
        async with _workers(server.address) as workers:
            passed = await _Demo(console, chosen, server, workers).run()
        if keep:
            await until_interrupted(console, server)
    return 0 if passed else 1


class _Workers:
    """The worker processes, one at a time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._current: Process | None = None
        self._watching = set[asyncio.Task[None]]()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets an exception with the reason if a worker ends by itself."""

    async def start(self) -> int:
        """Start a worker and return its process id."""
        self._current = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sandbox_core.demo.worker", self._address, _TASK_QUEUE),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C reaches only the demo, which stops its worker last.
        )
        self._watching.add(asyncio.create_task(self._watch(self._current)))
        return self._current.pid

    async def _watch(self, worker: Process) -> None:
        assert worker.stdout is not None
        said = await worker.stdout.read()
        code = await worker.wait()
        if worker is self._current and not self.failed.done():
            why = said.decode(errors="replace") or f"a worker ended with exit code {code}"
            self.failed.set_exception(RuntimeError(why))

    async def kill(self) -> None:
        """End the current worker with SIGKILL."""
        worker, self._current = self._current, None
        if worker is not None and worker.returncode is None:
            worker.kill()
            await worker.wait()

    async def stop(self) -> None:
        """Stop the current worker once it has finished its work."""
        worker, self._current = self._current, None
        if worker is None or worker.returncode is not None:
            return
        assert worker.stdin is not None
        worker.stdin.close()
        try:
            await asyncio.wait_for(worker.wait(), _STOPPED_WITHIN_S)
        except asyncio.TimeoutError:
            worker.kill()
            await worker.wait()

    def is_running(self) -> bool:
        """Return whether a worker is running."""
        return self._current is not None and self._current.returncode is None


@asynccontextmanager
async def _workers(address: str) -> AsyncIterator[_Workers]:
    workers = _Workers(address)
    try:
        yield workers
    finally:
        await workers.stop()
        workers.failed.cancel()


class _Demo:
    def __init__(
        self, console: Console, provider: Provider, server: DevServer, workers: _Workers
    ) -> None:
        self._console, self._provider = console, provider
        self._server, self._workers = server, workers
        self._begun = time.monotonic()

    async def run(self) -> bool:
        """Run the workflow, kill its worker, and return whether the outcome is as promised."""
        client = await Client.connect(self._server.address)
        handle = await client.start_workflow(
            CountRuns.run,
            self._provider.name,
            id=f"sandbox-chaos-{uuid.uuid4().hex[:8]}",
            task_queue=_TASK_QUEUE,
            # A task dispatched to a worker that is just dying is dispatched again after this time.
            task_timeout=HEARTBEAT_TIMEOUT,
        )
        url = self._server.workflow_url(handle.id, handle.first_execution_run_id or "")
        self._console.print(
            f"Workflow {handle.id}: {url}\n"
            f"It runs a command of {LINES} seconds: {COMMAND}\n"
            f"A worker is given up if nothing is heard of it for {HEARTBEAT_TIMEOUT.seconds} s.\n",
            markup=False,
        )
        following = asyncio.create_task(self._follow(handle))
        breaking = asyncio.create_task(self._break(handle))
        try:
            either: set[asyncio.Future[Any]] = {following, self._workers.failed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                self._workers.failed.result()
            completed = await following
        except asyncio.CancelledError:
            breaking.cancel()
            if not self._workers.is_running():
                await self._workers.start()
            await give_up(handle)
            raise
        finally:
            breaking.cancel()
            following.cancel()
        return await self._verdict(handle, completed)

    async def _break(self, handle: WorkflowHandle[CountRuns, CountResult]) -> None:
        """Start a worker, kill it mid-command, and start another one."""
        self._say(f"Worker {await self._workers.start()} starts.")
        worker, _, _ = (await self._busy_worker(handle)).partition("@")
        self._say(f"Worker {worker} runs the command.")
        await self._workers.kill()
        self._say(f"Worker {worker} is killed with SIGKILL. The command continues in its sandbox.")
        self._say(f"Worker {await self._workers.start()} starts.")

    async def _busy_worker(self, handle: WorkflowHandle[CountRuns, CountResult]) -> str:
        """Wait until the command has run for a second; return the identity of its worker."""
        name = activity_name(self._provider.name, EXEC.name)
        while True:
            described = await handle.describe()
            for pending in described.raw_description.pending_activities:
                started, beat = pending.last_started_time, pending.last_heartbeat_time
                if pending.activity_type.name == name and beat.seconds > started.seconds:
                    return pending.last_worker_identity
            # No event to wait for: the history has an attempt only after it has ended.
            await asyncio.sleep(0.1)

    async def _follow(self, handle: WorkflowHandle[CountRuns, CountResult]) -> Mapping[str, int]:
        """Show each activity as it ends; return the number of completed ones of each type."""
        scheduled: dict[int, str] = {}
        workers: dict[int, str] = {}
        completed: dict[str, int] = {}
        async for event in handle.fetch_history_events(wait_new_event=True):
            if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                name = event.activity_task_scheduled_event_attributes.activity_type.name
                scheduled[event.event_id] = name
            elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                started = event.activity_task_started_event_attributes
                workers[started.scheduled_event_id], _, _ = started.identity.partition("@")
                if started.attempt > 1:
                    self._say(
                        f"  {scheduled[started.scheduled_event_id]}, attempt {started.attempt}, "
                        f"after: {started.last_failure.message}"
                    )
            elif (end := activity_end(event)) is not None:
                mark, scheduled_id = end
                name = scheduled[scheduled_id]
                if mark == "✓":
                    completed[name] = completed.get(name, 0) + 1
                why = event.activity_task_failed_event_attributes.failure.message
                by = f"worker {workers[scheduled_id]}" if scheduled_id in workers else "nobody"
                self._say(f"{mark} {name:<34} {by}  {why}".rstrip())
        return completed

    def _say(self, what: str) -> None:
        elapsed = time.monotonic() - self._begun
        self._console.print(f"{elapsed:>5.1f} s  {what}", markup=False)

    async def _verdict(
        self, handle: WorkflowHandle[CountRuns, CountResult], completed: Mapping[str, int]
    ) -> bool:
        self._console.print(Rule("Verdict", align="left"))
        state = None
        once = whole = False
        try:
            result = await handle.result()
        except WorkflowFailureError as error:
            self._console.print(f"The workflow failed: {error.cause}", style="red", markup=False)
        else:
            state = load_state(json.loads(result.session_state))
            runs = result.counter.count("run\n")
            once = runs == 1
            whole = result.output == _WHOLE and result.exit_code == 0
            self._console.print(
                f"The command ran {word(once, 'once', f'{runs} times')}, as its own counter says.\n"
                f"Its output is {word(whole, 'whole', 'not whole')}: "
                f"{result.output.count(chr(10))} lines of {LINES}, exit code {result.exit_code}."
            )
        left = await sandboxes_left(self._console, self._provider, completed, state)
        return once and whole and not left
