"""The same workflows over sandbox-core and over its peer, side by side.

The peer is the sandbox half of `temporalio-openai-agents`. Both run in one go on one real dev
server, each with a worker process of its own and the same backend, `UnixLocalSandboxClient`; the
README beside this file says what each case measures. Counts and ratios are what to look at: the
times are of a machine that does other things too.

    python benchmarks/peer.py --case commands data --json figures.json
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import itertools
import json
import os
import re
import subprocess
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

from agents import ModelProvider
from agents.items import ModelResponse
from agents.models.interface import Model
from agents.sandbox.sandboxes import unix_local
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseCustomToolCall, ResponseOutputItem
from peer_workflows import (
    COMMANDS,
    FILE_BYTES,
    MANIFESTS,
    MEGABYTE,
    MINUTE,
    OURS,
    PEER,
    RATIO,
    SIDES,
    SIZES,
    SKILLS,
    Agent,
    Commands,
    Files,
    Report,
    Task,
    noop,
)
from temporalio import openai_agents as peer
from temporalio.client import Client, Plugin, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import Worker

from sandbox_core.testing import DevServer
from sandbox_core.worker import SandboxPlugin

COUNTS = ("activities", "history events", "history bytes")
# The activities that open and close a session, as either side names them.
LIFECYCLE = re.compile(
    r".+-sandbox_(client_|session_)?(create|resume|delete|start|stop|shutdown|running)(_session)?"
)


PATCH = "*** Begin Patch\n*** Update File: a.txt\n@@\n-hello\n+goodbye\n*** End Patch"
SHOW = {"cmd": " && ".join(f"cat .agents/{skill}/SKILL.md" for skill in SKILLS)}

# What the model says, one item a turn; it ends with a message.
SCRIPTS: dict[str, list[ResponseOutputItem]] = {
    "patch": [
        ResponseCustomToolCall(
            type="custom_tool_call", call_id="patch", name="apply_patch", input=PATCH
        )
    ],
    "skills": [function_call("exec_command", SHOW, call_id="show")],
    "lazy skills": [
        *(function_call("load_skill", {"skill_name": s}, call_id=s) for s in SKILLS),
        function_call("exec_command", SHOW, call_id="show"),
    ],
}


class ScriptedModels(ModelProvider):
    """Provides a model for the next turn of the script of that name."""

    def __init__(self) -> None:
        done = assistant_message("Done.")
        self._turns = {name: itertools.cycle([*said, done]) for name, said in SCRIPTS.items()}

    def get_model(self, model_name: str | None) -> Model:
        return _Says([[next(self._turns[model_name or ""])]])


class _Says(ScriptedModel):
    """A scripted model that keeps no record: what Temporal has decoded cannot be copied."""

    async def get_response(self, **call: Any) -> ModelResponse:  # type: ignore[override] # noqa: ANN401
        return await super().get_response(**{**call, "input": ""})


async def serve(side: str, address: str, task_queue: str) -> None:
    """Be the worker of one side until standard input ends."""
    # As the provider `local` of sandbox-core makes it.
    backend = unix_local.UnixLocalSandboxClient(inherit_host_environment=False)
    agents = peer.OpenAIAgentsPlugin(
        model_params=peer.ModelActivityParameters(start_to_close_timeout=MINUTE),
        model_provider=ScriptedModels(),
        sandbox_clients=[peer.SandboxClientProvider("local", backend)] if side == PEER else [],
    )
    plugins: list[Plugin] = [agents]
    if side == OURS:
        plugins.append(SandboxPlugin(local_sources=["skills"]))
    client = await Client.connect(address, plugins=plugins)
    workflows = [Agent, Commands, Files]
    async with Worker(client, task_queue=task_queue, workflows=workflows, activities=[noop]):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)


class WorkerProcess:
    """The worker of one side, in `folder`; a new one takes its place when it is stuck."""

    def __init__(self, side: str, address: str, folder: Path) -> None:
        self.task_queue = f"{side}-{uuid.uuid4().hex[:8]}"
        self.peak_bytes = 0
        self._command = [sys.executable, __file__, "--worker", side, address, self.task_queue]
        self.folder = folder

    async def start(self) -> None:
        """Start the process and return once it works; if it ends instead, raise what it wrote."""
        log = self.folder / f"{self.task_queue}.log"
        own = {
            "SANDBOX_CORE_PROVIDERS": "local",
            "SANDBOX_CORE_STORAGE": str(self.folder / "storage"),
            "TMPDIR": str(self.folder),
        }
        with log.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self.folder,
                env={**os.environ, **own},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the worker did not start: {log.read_text()}")

    async def stop(self, patience: float = 10.0) -> None:
        """End the process, which drains first for as long as `patience`; note its peak memory."""
        assert self._process.stdin is not None
        self.peak_bytes = max(self.peak_bytes, _peak_bytes(self._process.pid))
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), patience)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")  # On Linux only.
    peak = re.search(r"VmHWM:\s*(\d+) kB", status.read_text() if status.exists() else "")
    return int(peak[1]) * 1024 if peak else 0


Figure: TypeAlias = "float | str"


@dataclass(kw_only=True)
class Measured:
    """What one workflow cost, by the names of the figures, and what kept it from working."""

    report: Report = field(default_factory=Report)
    problem: str = ""
    figures: dict[str, Figure] = field(default_factory=dict)


class Benchmark:
    """Runs the cases over both sides and gathers rows and notes; `rounds` is for times."""

    def __init__(self, client: Client, rounds: int) -> None:
        self.rows: list[dict[str, Figure]] = []
        self.notes: list[str] = []
        self.workers: dict[str, WorkerProcess] = {}
        self._client = client
        self._rounds = rounds

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

    async def tools(self) -> None:
        """Measure a patch, runs with skills, and an extract."""
        last, skills = [*SKILLS.values()][-1], str(self.workers[OURS].folder / "skills")
        for what, expected in zip(SCRIPTS, ("Updated a.txt", last, last), strict=True):
            both = await self.run(Agent, Task(what=what, skills=skills), what, expected=expected)
            working = ("activities but for the lifecycle",)
            self.add(what, both, *COUNTS, *working, "model activities", "bytes of the model")
        both = await self.run(Files, Task(what="extract"), "extract", expected=f"{5 * FILE_BYTES}")
        self.add("extract", both, *COUNTS, "activities but for the lifecycle")

    async def data(self) -> None:
        """Measure reads and writes of several sizes."""
        for what, megabytes in itertools.product(("read", "write"), SIZES):
            case, size = f"{what} of {megabytes:g} MB", int(megabytes * MEGABYTE)
            task = Task(what=what, size=size)
            both = await self.run(Files, task, case, expected=str(size), patience=20)
            times = {side: measured.report.steps for side, measured in both.items()}
            for _ in range(0 if any(m.problem for m in both.values()) else self._rounds - 1):
                again = await self.run(Files, task, case, expected=str(size), patience=20)
                for side in SIDES:
                    times[side] = [*times[side], *again[side].report.steps]
            for side in SIDES:
                both[side].figures["time, ms"] = median(times[side] or [0.0]) * 1000
            self.add(case, both, "time, ms", "history bytes")

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
        definition: type[Commands | Agent | Files],
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


CASES: dict[str, Callable[[Benchmark], Awaitable[None]]] = {
    "commands": Benchmark.commands,
    "tools": Benchmark.tools,
    "data": Benchmark.data,
    "unknown": Benchmark.unknown,
}


async def measure(cases: Sequence[str], rounds: int, folder: Path) -> Benchmark:
    """Run the cases, each with new workers, and return what was measured."""
    for name, text in SKILLS.items():
        skill = folder / "skills" / name / "SKILL.md"
        skill.parent.mkdir(parents=True)
        skill.write_text(f"---\nname: {name}\ndescription: To {name}\n---\n{text}\n")
    with DevServer() as server:
        benchmark = Benchmark(await Client.connect(server.address), rounds)
        for case in cases:
            begin = time.perf_counter()
            async with AsyncExitStack() as stack:
                for side in SIDES:
                    worker = benchmark.workers[side] = WorkerProcess(side, server.address, folder)
                    await worker.start()
                    stack.push_async_callback(worker.stop)
                # The first workflow of a process is slower, and does not count.
                await benchmark.run(Commands, Task(commands=1), f"before {case}")
                await CASES[case](benchmark)
            ours, peers = (benchmark.workers[side].peak_bytes / MEGABYTE for side in SIDES)
            benchmark.add_row(f"all {case}", "peak memory of the worker, MB", ours, peers)
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
    """Measure, and print the table; or be a worker of a measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3, help="runs whose median time is taken")
    parser.add_argument("--json", type=Path, help="write the rows and notes there, too")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        asyncio.run(serve(*arguments.worker))
        return
    with tempfile.TemporaryDirectory(prefix="peer-benchmark-") as folder:
        total = asyncio.run(measure(arguments.case, arguments.rounds, Path(folder)))
    print(table(total.rows), "", *(f"- {note}" for note in total.notes), sep="\n")
    if arguments.json:
        data = {"rows": total.rows, "notes": total.notes}
        arguments.json.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
