"""Compares the same workflows with sandbox-core and with its peer.

The peer is the sandbox half of `temporalio-openai-agents`. Both run on one real dev server, each
with its own worker processes and the same backend, `UnixLocalSandboxClient`. The README in this
folder describes the cases. Counts and ratios are meaningful; the times depend on the load of the
machine.

    python benchmarks/peer.py --case commands data --json figures.json
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import itertools
import json
import re
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from peer_worker import ACTIVITIES, BOTH, SCRIPTS, WORKFLOWS, WorkerProcess
from peer_workflows import (
    COMMANDS,
    FILE_BYTES,
    MANIFESTS,
    MEGABYTE,
    MOVED_FILES,
    MOVES,
    OURS,
    PEER,
    RATIO,
    SIDES,
    SIZES,
    SKILLS,
    SNAPSHOT,
    Agent,
    Commands,
    Files,
    Report,
    Task,
    Workspace,
    queues_beside,
)
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, FailureError

from sandbox_core.testing import DevServer

# After so many seconds, something hangs: an operation, or all that a snapshot takes.
PATIENCE, MOVE_PATIENCE = 20, 300
MEMORY = tuple(
    f"peak memory of the {what}, MB"
    for what in ("worker that saves", "worker that restores", "workflow worker")
)
COUNTS = ("activities", "history events", "history bytes")
# The activities that open and close a session, as either side names them.
LIFECYCLE = re.compile(
    r".+-sandbox_(client_|session_)?(create|resume|delete|start|stop|shutdown|running)(_session)?"
)


Figure: TypeAlias = "float | str"


@dataclass(kw_only=True)
class Measured:
    """What one workflow cost, by the names of the figures, and what kept it from working."""

    report: Report = field(default_factory=Report)
    problem: str = ""
    figures: dict[str, Figure] = field(default_factory=dict)


Case: TypeAlias = Callable[["Benchmark"], Awaitable[None]]


def one_worker(case: Case) -> Case:
    """Give a case one worker process a side, and add a row of what memory that took."""

    async def run(benchmark: Benchmark) -> None:
        name = getattr(case, "__name__", "")
        async with AsyncExitStack() as stack:
            for side in SIDES:
                worker = benchmark.workers[side] = benchmark.worker(side)
                await worker.start()
                stack.push_async_callback(worker.stop)
            # The first workflow of a process is slower, and does not count.
            await benchmark.run(Commands, Task(commands=1), f"before {name}")
            await case(benchmark)
        ours, peers = (benchmark.workers[side].peak_bytes / MEGABYTE for side in SIDES)
        benchmark.add_row(f"all {name}", "peak memory of the worker, MB", ours, peers)

    return run


class Benchmark:
    """Runs the cases over both sides and gathers rows and notes; `rounds` is for times."""

    def __init__(self, client: Client, address: str, folder: Path, rounds: int) -> None:
        self.rows: list[dict[str, Figure]] = []
        self.notes: list[str] = []
        self.workers: dict[str, WorkerProcess] = {}
        self._client = client
        self._address = address
        self._folder = folder
        self._rounds = rounds

    def worker(self, side: str, *, runs: str = BOTH, task_queue: str = "") -> WorkerProcess:
        """Return a worker of a side, not started yet."""
        return WorkerProcess(side, self._address, self._folder, runs=runs, task_queue=task_queue)

    @one_worker
    async def commands(self) -> None:
        """Measure 50 commands, with manifests of several sizes."""
        for files in MANIFESTS:
            case, task = f"{COMMANDS} commands, {files} files", Task(files=files, commands=COMMANDS)
            times: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
            for _ in range(self._rounds):
                both = await self.run(Commands, task, case)
                mixed = await self.run(Commands, replace(task, commands=25, noops=True), case)
                for side in SIDES:
                    times[side, "wall time, s"].append(float(both[side].figures["seconds"]))
                    if noops := mixed[side].report.noops:
                        relative = median(mixed[side].report.steps) / median(noops)
                        times[side, "one exec, in no-op activities"].append(relative)
            for (side, figure), measured in times.items():
                both[side].figures[figure] = median(measured)
            described = ("history bytes, as described", "wall time, s")
            self.add(case, both, *COUNTS, *described, "one exec, in no-op activities")

    @one_worker
    async def tools(self) -> None:
        """Measure a patch, runs with skills, and an extract."""
        last, skills = [*SKILLS.values()][-1], str(self._folder / "skills")
        for what, expected in zip(SCRIPTS, ("Updated a.txt", last, last), strict=True):
            both = await self.run(Agent, Task(what=what, skills=skills), what, expected=expected)
            working = ("activities but for the lifecycle",)
            self.add(what, both, *COUNTS, *working, "model activities", "bytes of the model")
        both = await self.run(Files, Task(what="extract"), "extract", expected=f"{5 * FILE_BYTES}")
        self.add("extract", both, *COUNTS, "activities but for the lifecycle")

    @one_worker
    async def data(self) -> None:
        """Measure reads and writes of several sizes."""
        for what, megabytes in itertools.product(("read", "write"), SIZES):
            case, size = f"{what} of {megabytes:g} MB", int(megabytes * MEGABYTE)
            task = Task(what=what, size=size)
            both = await self.run(Files, task, case, expected=str(size), patience=PATIENCE)
            times = {side: measured.report.steps for side, measured in both.items()}
            for _ in range(0 if any(m.problem for m in both.values()) else self._rounds - 1):
                again = await self.run(Files, task, case, expected=str(size), patience=PATIENCE)
                for side in SIDES:
                    times[side] = [*times[side], *again[side].report.steps]
            for side in SIDES:
                both[side].figures["time, ms"] = median(times[side] or [0.0]) * 1000
            self.add(case, both, "time, ms", "history bytes")

    async def workspace(self) -> None:
        """Measure how workspaces of several sizes get from one worker to another."""
        for what, sizes in MOVES.items():
            for megabytes in sizes:
                await self._move(what, megabytes)

    async def _move(self, what: str, megabytes: float) -> None:
        case = f"{what} of {megabytes:g} MB"
        task = Task(what=what, size=int(megabytes * MEGABYTE), folder=str(self._folder))
        patience = MOVE_PATIENCE if what == SNAPSHOT else PATIENCE
        times: dict[str, list[list[float]]] = collections.defaultdict(list)
        async with AsyncExitStack() as stack:
            others: dict[str, list[WorkerProcess]] = {}
            for side in SIDES:
                worker = self.workers[side] = self.worker(side, runs=WORKFLOWS)
                others[side] = [
                    self.worker(side, runs=ACTIVITIES, task_queue=queue)
                    for queue in queues_beside(worker.task_queue)
                ]
                for process in (worker, *others[side]):
                    stack.push_async_callback(process.stop)
                await asyncio.gather(*(each.start() for each in (worker, *others[side])))
            await self.run(Workspace, replace(task, size=MOVED_FILES), f"before {case}")
            for _ in range(self._rounds):
                both = await self.run(
                    Workspace,
                    task,
                    case,
                    expected=f"{task.size} bytes, the same",
                    patience=patience,
                )
                for side, measured in both.items():
                    times[side].append(measured.report.steps)
                if any(measured.problem for measured in both.values()):
                    break
        for side, measured in both.items():
            if not measured.problem:
                saves, restores = map(median, zip(*times[side], strict=True))
                measured.figures |= {"time to save, s": saves, "time to restore, s": restores}
            for name, process in zip(MEMORY, (*others[side], self.workers[side]), strict=True):
                measured.figures[name] = process.peak_bytes / MEGABYTE
        self.add(case, both, "time to save, s", "time to restore, s", *MEMORY, "history bytes")

    @one_worker
    async def unknown(self) -> None:
        """Measure how long a provider that no worker has takes to be noticed."""
        both = await self.run(Commands, Task(provider="nowhere"), "unknown provider", patience=15)
        for measured in both.values():
            measured.problem = "" if measured.report.error else measured.problem or "no error"
            measured.figures["time until it fails, s"] = measured.figures["seconds"]
        self.add("unknown provider", both, "time until it fails, s")

    def add(self, case: str, both: Mapping[str, Measured], *figures: str) -> None:
        """Add rows to the table; a problem stands in the first, and has no ratio in the others."""
        for figure in figures:
            cells = [measured.figures.get(figure, "") for measured in both.values()]
            for column, measured in enumerate(both.values()):
                if measured.problem:
                    cells[column] = (
                        measured.problem if figure == figures[0] else _cell(cells[column])
                    )
            self.add_row(case, figure, *cells)

    def add_row(self, case: str, figure: str, ours: Figure, peers: Figure) -> None:
        """Add a row to the table."""
        row: dict[str, Figure] = {"case": case, "figure": figure, OURS: ours, PEER: peers}
        if not isinstance(ours, str) and not isinstance(peers, str) and ours:
            row[RATIO] = peers / ours
        self.rows.append(row)

    async def run(
        self,
        definition: type[Commands | Agent | Files | Workspace],
        task: Task,
        case: str,
        *,
        expected: str = "",
        patience: float = 60,
    ) -> dict[str, Measured]:
        """Run one workflow over each side; past `patience` it is said to hang and terminated."""
        both = {side: Measured() for side in SIDES}
        for side, measured in both.items():
            begin = time.perf_counter()
            handle = await self._client.start_workflow(
                definition.__name__,
                replace(task, side=side),
                id=f"{definition.__name__}-{uuid.uuid4().hex[:8]}",
                task_queue=self.workers[side].task_queue,
                result_type=Report,
            )
            try:
                report = measured.report = await asyncio.wait_for(handle.result(), patience)
                if expected not in report.answer and not report.error:
                    report.error = f"wrong answer: {report.answer}"
            except WorkflowFailureError as failure:
                measured.report.error = _causes(failure.cause)
            except asyncio.TimeoutError:
                measured.problem = f"hangs ({patience:.0f} s)"
                self.notes.append(f"{case}, {side}: {await _why(handle)}")
                await handle.terminate()
                await self.workers[side].stop(patience=0)
                await self.workers[side].start()
            seconds = time.perf_counter() - begin
            if error := measured.report.error:
                after = sum(measured.report.steps) or seconds
                measured.problem = f"{error.partition(':')[0]} ({after * 1000:.0f} ms)"
                self.notes.append(f"{case}, {side}: {_line(error)}")
            measured.figures = {"seconds": seconds, **await _count(handle)}
        return both


async def _why(handle: WorkflowHandle[Any, Report]) -> str:
    """Return what Temporal says that a hanging workflow waits for."""
    described = (await handle.describe()).raw_description
    reasons = [
        f"attempt {pending.attempt} of {pending.activity_type.name}: {pending.last_failure.message}"
        for pending in described.pending_activities
    ]
    async for event in handle.fetch_history_events():
        if event.HasField("workflow_task_failed_event_attributes"):
            failed = event.workflow_task_failed_event_attributes.failure.message
            attempt = described.pending_workflow_task.attempt
            reasons = [f"attempt {attempt} of a workflow task: {failed}"]
    return _line("; ".join(reasons) or "nothing is pending")


async def _count(handle: WorkflowHandle[Any, Report]) -> dict[str, int]:
    """Count what is in the history, the model's activities apart."""
    described = (await handle.describe()).raw_description.workflow_execution_info
    counts = dict.fromkeys((*COUNTS, "activities but for the lifecycle", "bytes of the model"), 0)
    model: set[int] = set()
    async for event in handle.fetch_history_events():
        attributes = getattr(event, event.WhichOneof("attributes") or "")
        if event.HasField("activity_task_scheduled_event_attributes"):
            name = attributes.activity_type.name
            if name.startswith("invoke_model_activity"):
                model.add(event.event_id)
            else:
                counts["activities"] += 1
                counts["activities but for the lifecycle"] += LIFECYCLE.fullmatch(name) is None
        of_model = {event.event_id, getattr(attributes, "scheduled_event_id", 0)} & model
        counts["bytes of the model" if of_model else "history bytes"] += event.ByteSize()
        counts["history events"] += 1
    counts["history bytes, as described"] = described.history_size_bytes
    return {**counts, "model activities": len(model)}


def _causes(error: BaseException | None) -> str:
    """Return the messages of an error and of what it came from, after the first one's type."""
    chain: list[FailureError] = []
    while isinstance(error, FailureError):
        chain.append(error)
        error = error.cause
    types = [one.type or "" for one in chain if isinstance(one, ApplicationError)]
    return ": ".join([*types[:1], " <- ".join(one.message for one in chain)])


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."


CASES: dict[str, Case] = {
    "commands": Benchmark.commands,
    "tools": Benchmark.tools,
    "data": Benchmark.data,
    "workspace": Benchmark.workspace,
    "unknown": Benchmark.unknown,
}


async def measure(cases: Sequence[str], rounds: int, folder: Path) -> Benchmark:
    """Run the cases, each with new workers, and return what was measured."""
    for name, text in SKILLS.items():
        skill = folder / "skills" / name / "SKILL.md"
        skill.parent.mkdir(parents=True)
        skill.write_text(f"---\nname: {name}\ndescription: To {name}\n---\n{text}\n")
    with DevServer() as server:
        client = await Client.connect(server.address)
        benchmark = Benchmark(client, server.address, folder, rounds)
        for case in cases:
            begin = time.perf_counter()
            await CASES[case](benchmark)
            print(f"{case}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return benchmark


def table(rows: Sequence[Mapping[str, Figure]]) -> str:
    """Return the rows as a table in Markdown."""
    lines, previous = [["Case", "Figure", OURS, PEER, RATIO]], ""
    for row in rows:
        case, previous = "" if row["case"] == previous else str(row["case"]), str(row["case"])
        cells = (row["figure"], row[OURS], row[PEER], row.get(RATIO, ""))
        lines.append([case, *map(_cell, cells)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def _cell(figure: Figure) -> str:
    if isinstance(figure, str):
        return figure
    return f"{figure:,.0f}" if isinstance(figure, int) or figure >= 100 else f"{figure:.2f}"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3, help="runs whose median time is taken")
    parser.add_argument("--json", type=Path, help="write the rows and notes there, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="peer-benchmark-") as folder:
        total = asyncio.run(measure(arguments.case, arguments.rounds, Path(folder)))
    print(table(total.rows), "", *(f"- {note}" for note in total.notes), sep="\n")
    if arguments.json:
        data = {"rows": total.rows, "notes": total.notes}
        arguments.json.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
