"""Compares what sandbox-core and its peer do when something fails.

The peer is the sandbox half of `temporalio-openai-agents`. Both run concurrently on one real dev
server, with the same workflows and the same backend, `UnixLocalSandboxClient`. Each case has its
own worker processes for each side, which are killed with SIGKILL. The README in this folder
describes the cases.

    python benchmarks/faults.py --case command edit
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from faults_workflows import EDITED, FIRST_USES, WRITTEN, Agent, Session, Task
from peer_workflows import MEGABYTE, OURS, PEER, SIDES
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import FailureError

from sandbox_core.testing import DevServer

PATIENCE_S = 10.0
COMMAND_LIMIT_S, COMMAND_PATIENCE_S = 60.0, 150.0
CREATE_LIMIT_S = 4.0
EDITS = 8
AT_A_TIME = 3
_WORKER = Path(__file__).with_name("faults_worker.py")

TOOLS = {
    "apply_patch": "apply_patch of a missing file",
    "view_image": "view_image of a missing file",
    "exec_command": "exec_command beyond its time",
}


Handle = WorkflowHandle[Any, str]
Figures = dict[str, str]


class Side:
    """One side in one case: a folder and a task queue of its own, its workers and workflows."""

    def __init__(self, name: str, client: Client, address: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._client = client
        self._address = address
        self._task_queue = uuid.uuid4().hex[:8]
        self._workers: list[asyncio.subprocess.Process] = []
        self.environment = {
            **os.environ,
            # Its own provider of that name takes the place of the one that is installed.
            "SANDBOX_CORE_PROVIDERS": "local",
            "SANDBOX_CORE_DISABLED_PROVIDERS": "local",
            "SANDBOX_CORE_STORAGE": str(folder / "storage"),
            "TMPDIR": str(folder),
        }

    async def worker(self, fault: str = "none") -> asyncio.subprocess.Process:
        """Start a worker and return it when it works."""
        process = await self.spare(fault)
        await self.begin(process)
        return process

    async def spare(self, fault: str = "none") -> asyncio.subprocess.Process:
        """Start a worker that has loaded everything and only works when it is told to `begin`."""
        command = (sys.executable, str(_WORKER), self.name, self._address)
        with (self.folder / "worker.log").open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *(*command, self._task_queue, fault),
                cwd=self.folder,
                env=self.environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        self._workers.append(process)
        await self._says(process, "loaded")
        return process

    async def begin(self, worker: asyncio.subprocess.Process) -> None:
        """Let a worker work."""
        assert worker.stdin is not None
        worker.stdin.write(b"begin\n")
        await self._says(worker, "ready")

    async def _says(self, worker: asyncio.subprocess.Process, word: str) -> None:
        assert worker.stdout is not None
        if await worker.stdout.readline() != f"{word}\n".encode():
            log = self.folder / "worker.log"
            raise RuntimeError(f"the worker did not start: {log.read_text()}")

    async def kill(self, worker: asyncio.subprocess.Process) -> None:
        """Kill a worker with SIGKILL, unless it has ended."""
        with suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()

    async def kill_all(self) -> None:
        """Kill those that still run."""
        await asyncio.gather(*map(self.kill, self._workers))

    async def start(self, definition: type[Agent | Session], **task: Any) -> Handle:  # noqa: ANN401 - passed on
        """Start a workflow with this task."""
        return await self._client.start_workflow(
            definition.__name__,
            Task(side=self.name, **task),
            id=f"{definition.__name__}-{uuid.uuid4().hex[:8]}",
            task_queue=self._task_queue,
            result_type=str,
        )

    async def open(self, **task: Any) -> Handle:  # noqa: ANN401 - passed on
        """Start a workflow and return it when its session is open and it holds it."""
        handle = await self.start(Session, holds=True, **task)
        await handle.execute_update(Session.opened)
        return handle

    def sandboxes(self) -> int:
        """Return how many directories of sandboxes there are."""
        return sum(path.is_dir() for path in self.folder.glob("sandbox-local-*"))

    def resumes(self) -> int:
        """Return how many resumes the backend was asked for."""
        resumes = self.folder / "resumes"
        return len(resumes.read_text().splitlines()) if resumes.exists() else 0


async def outcome(handle: Handle, patience: float = PATIENCE_S) -> str:
    """Return a workflow's answer, or how it failed; past `patience` what it is at, and end it."""
    begin = time.perf_counter()
    try:
        return await asyncio.wait_for(handle.result(), patience)
    except WorkflowFailureError as failure:
        after = time.perf_counter() - begin
        return f"the workflow fails after {after:.2f} s: {_reason(failure)}"
    except asyncio.TimeoutError:
        described = (await handle.describe()).raw_description
        await handle.terminate()
        attempts = [pending.attempt for pending in described.pending_activities]
        retrying = max(attempts, default=0) > 1
        at = f"still retrying (attempt {max(attempts)})" if retrying else "not done"
        return f"{at} after {patience:.0f} s"


def _reason(failure: WorkflowFailureError) -> str:
    """Return the first message that says something: the outer ones only say what has failed."""
    error: BaseException | None = failure.cause
    while isinstance(error, FailureError):
        if error.message != "Activity task failed":
            return error.message
        error = error.cause
    return str(failure.cause)


async def there(path: Path) -> None:
    """Return when there is such a file."""
    await _until(path.exists)


async def _until(condition: Callable[[], bool]) -> None:
    while True:  # No event tells of files, or of processes of others.
        if condition():
            return
        await asyncio.sleep(0.02)


def processes_with(mark: str) -> list[int]:
    """Return the processes that have this text in their environment."""

    def found() -> Iterator[int]:
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark.encode() in environ.read_bytes():
                    yield int(environ.parent.name)

    return list(found())


# --- The cases ----------------------------------------------------------------------------------


async def command(side: Side) -> Figures:
    """Kill the worker in mid-command; another one starts in its place."""
    return await _command(side, started_before=False)


async def command_elsewhere(side: Side) -> Figures:
    """Kill the worker in mid-command; another one is at work on the host already."""
    return await _command(side, started_before=True)


async def _command(side: Side, *, started_before: bool) -> Figures:
    began, ends = side.folder / "began", side.folder / "ends"
    worker, spare = await asyncio.gather(side.worker(), side.spare())
    script = f"echo run >> {began}; until [ -e {ends} ]; do sleep 0.05; done; echo done"
    handle = await side.start(Session, act="run", command=script, limit_s=COMMAND_LIMIT_S)
    await there(began)
    if started_before:
        await side.begin(spare)
    await side.kill(worker)
    begin = time.perf_counter()
    if not started_before:
        await side.begin(spare)
    ends.touch()
    answer = await outcome(handle, COMMAND_PATIENCE_S)
    after = f"{time.perf_counter() - begin:.1f} s" if answer == "done\n" else answer
    runs = len(began.read_text().splitlines())
    return {"times that the command ran": str(runs), "from the kill to its result": after}


async def create_killed(side: Side) -> Figures:
    """Kill the worker when the backend has made the sandbox, before it answers."""
    worker, spare = await asyncio.gather(side.worker("kill after create"), side.spare())
    handle = await side.start(Session, holds=True, limit_s=CREATE_LIMIT_S)
    await worker.wait()
    await side.begin(spare)
    return await _counted(side, handle)


async def create_slow(side: Side) -> Figures:
    """Let the backend take longer for the answer to a create than it may."""
    await side.worker("slow create")
    handle = await side.start(Session, holds=True, limit_s=CREATE_LIMIT_S)
    await there(side.folder / "answered")
    return await _counted(side, handle)


async def _counted(side: Side, handle: Handle) -> Figures:
    await asyncio.wait_for(handle.execute_update(Session.opened), 2 * PATIENCE_S)
    held = side.sandboxes()
    await handle.signal(Session.proceed)
    answer = await outcome(handle)
    left = str(side.sandboxes()) if answer == "" else answer
    return {"sandboxes while one is held": str(held), "sandboxes once it is deleted": left}


async def edit(side: Side) -> Figures:
    """Go on with a session whose manifest file was edited, on whichever of two workers."""
    await asyncio.gather(*(side.worker("no eager dispatch") for _ in range(2)))
    handles = [await side.start(Session, act="edit") for _ in range(EDITS)]
    answers = await asyncio.gather(*(outcome(handle, 3 * PATIENCE_S) for handle in handles))
    kept = answers.count(EDITED)
    others = {answer for answer in answers if answer not in (EDITED, WRITTEN)}
    figure = f"{kept} of {EDITS}" + "".join(f"; {answer}" for answer in sorted(others))
    return {"runs in which the edit is still there": figure}


async def cancel(side: Side) -> Figures:
    """Cancel the workflow in mid-command."""
    await side.worker()
    mark, began = f"FAULTS_MARK={uuid.uuid4().hex}", side.folder / "began"
    script = f"export {mark}; sleep 300 & sleep 301 & touch {began}; wait"
    handle = await side.start(Session, act="run", command=script)
    await there(began)
    await handle.cancel()
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_until(lambda: not processes_with(mark)), PATIENCE_S)
    left = processes_with(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return {f"processes left after {PATIENCE_S:.0f} s": str(len(left))}


async def read(side: Side) -> Figures:
    """Read a file of two megabytes."""
    await side.worker()
    fill = f"head -c {2 * MEGABYTE} /dev/urandom > notes.txt"
    return {"result": await outcome(await side.start(Session, act="read", command=fill))}


async def provider(side: Side) -> Figures:
    """Ask for a provider whose name is misspelt."""
    await side.worker()
    return {"result": await outcome(await side.start(Session, provider="locla"))}


async def tools(side: Side) -> Figures:
    """Have an agent do what fails, and see what its model is told."""
    await side.worker("no pty")
    return {
        figure: await outcome(await side.start(Agent, act=act), 3 * PATIENCE_S)
        for act, figure in TOOLS.items()
    }


async def first_uses(side: Side) -> Figures:
    """Use a session eight times at once on a worker that does not hold it."""
    worker, spare = await asyncio.gather(side.worker(), side.spare())
    handle = await side.open(act="first uses")
    await side.kill(worker)
    await side.begin(spare)
    before = side.resumes()
    await handle.signal(Session.proceed)
    answer = await outcome(handle)
    resumes = str(side.resumes() - before) if answer == WRITTEN else answer
    return {f"resumes for {FIRST_USES} uses and the delete": resumes}


async def terminate(side: Side) -> Figures:
    """Terminate the workflow, and look for what it leaves with `sandbox-core reap`."""
    await side.worker()
    handle = await side.open()
    await handle.terminate()
    before = side.sandboxes()
    reap = ("reap", "--delete", "--provider", "local", "--older-than", "0s")
    environment = {**side.environment, "SANDBOX_CORE_DISABLED_PROVIDERS": ""}
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).parent / "sandbox-core"), *reap, "--address", side._address),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    written, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"sandbox-core reap: {written.decode()}")
    return {
        "sandboxes left": str(before),
        "sandboxes left after `sandbox-core reap --delete`": str(side.sandboxes()),
    }


CASES: dict[str, Callable[[Side], Awaitable[Figures]]] = {
    "command": command,
    "command-elsewhere": command_elsewhere,
    "create-killed": create_killed,
    "create-slow": create_slow,
    "edit": edit,
    "cancel": cancel,
    "read": read,
    "provider": provider,
    "tools": tools,
    "first-uses": first_uses,
    "terminate": terminate,
}


async def measure(cases: Sequence[str], folder: Path) -> list[list[str]]:
    """Run the cases, each over both sides at once, and return the rows of the table."""
    slots = asyncio.Semaphore(AT_A_TIME)  # Most of a case is waiting.
    with DevServer() as server:
        client = await Client.connect(server.address)

        async def both(case: str) -> list[list[str]]:
            async with slots:
                begin = time.perf_counter()
                ours, peers = await asyncio.gather(
                    *(_over(case, name, client, server.address, folder / case) for name in SIDES)
                )
                print(f"{case}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
                return [[case, figure, ours[figure], peers[figure]] for figure in ours]

        return list(itertools.chain(*await asyncio.gather(*map(both, cases))))


async def _over(case: str, name: str, client: Client, address: str, folder: Path) -> Figures:
    own = folder / name
    own.mkdir(parents=True)
    side = Side(name, client, address, own)
    try:
        return await CASES[case](side)
    finally:
        await side.kill_all()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as a table in Markdown."""
    lines = [["Case", "Figure", OURS, PEER], ["---"] * 4]
    previous = ""
    for case, *cells in rows:
        lines.append(["" if case == previous else case, *map(_cell, cells)])
        previous = case
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= 200 else f"{line[:197]}..."


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        print(table(asyncio.run(measure(arguments.case, Path(folder)))))


if __name__ == "__main__":
    main()
