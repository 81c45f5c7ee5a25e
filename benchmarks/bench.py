"""Commands: sandbox-core, its peer, and the floor of either, in one run.

One real dev server, one worker process a side, the same workflows and the same backend (`local`).
The floor is a call of the backend without Temporal, and a no-op activity. CPU is that of the worker
process and, apart from it, that of all processes it has started: commands, and the helper.

    python benchmarks/bench.py --json figures.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from peer import Benchmark
from peer_worker import SCRIPTS, WorkerProcess
from peer_workflows import OURS, SIDES, Agent, Commands, Report, Task
from rich.console import Console
from rich.table import Table
from temporalio.client import Client

from sandbox_core.testing import DevServer

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(kw_only=True)
class Row:
    """One figure of a case: of each side, and the floor where there is one; less is better."""

    case: str
    figure: str
    sides: dict[str, float]
    floor: float | None = None
    more_is_better: bool = False


@dataclass(frozen=True)
class Cpu:
    """Seconds that a worker has used, and that the processes that it has reaped have."""

    own: float
    children: float

    @classmethod
    def of(cls, worker: WorkerProcess) -> Cpu:
        stat = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        own, system, of_children, system_of_children = map(int, stat[11:15])
        return cls((own + system) / _TICK, (of_children + system_of_children) / _TICK)

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.own - other.own, self.children - other.children)


@dataclass
class Bench:
    """Runs the cases and gathers their rows."""

    client: Client
    workers: dict[str, WorkerProcess]
    rows: list[Row] = field(default_factory=list)

    async def commands(self, rounds: int) -> None:
        """One command after another in a workflow, with a no-op activity after each."""
        direct = await _direct_calls(50)
        steps: dict[str, list[float]] = {side: [] for side in SIDES}
        noops: list[float] = []
        cpu: dict[str, list[Cpu]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                mixed = await self._run(side, Task(commands=25, noops=True))
                steps[side] += mixed.steps
                noops += mixed.noops
                before = Cpu.of(self.workers[side])
                await self._run(side, Task(commands=100))
                after = Cpu.of(self.workers[side])
                opening = Cpu.of(self.workers[side])
                await self._run(side, Task(commands=0))
                cpu[side].append((after - before) - (Cpu.of(self.workers[side]) - opening))
        floor = median(noops) + median(direct)
        case = "exec true, one after another"
        p50 = {side: median(steps[side]) * 1000 for side in SIDES}
        self._add(case, "p50, ms", p50, floor * 1000)
        self._add(case, "p95, ms", {side: _p95(steps[side]) * 1000 for side in SIDES})
        ratios = {side: p50[side] / 1000 / floor for side in SIDES}
        self._add(case, "p50, in (no-op activity + direct call)", ratios, 1.0)
        own = {side: median(each.own for each in cpu[side]) * 10 for side in SIDES}
        children = {side: median(each.children for each in cpu[side]) * 10 for side in SIDES}
        self._add(case, "CPU of the worker, ms a command", own)
        self._add(case, "CPU of its processes, ms a command", children)
        both = {side: own[side] + children[side] for side in SIDES}
        self._add(case, "CPU, ms a command", both)

    async def fleet(self, count: int, rounds: int) -> None:
        """Many workflows at once: create, start, 20 commands, delete."""
        rates: dict[str, list[float]] = {side: [] for side in SIDES}
        steps: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                begin = time.perf_counter()
                reports = await asyncio.gather(
                    *(self._run(side, Task(commands=20)) for _ in range(count))
                )
                rates[side].append(20 * count / (time.perf_counter() - begin))
                steps[side] += [step for report in reports for step in report.steps]
        case = f"{count} workflows at once, 20 commands each"
        self._add(
            case,
            "commands a second",
            {side: median(rates[side]) for side in SIDES},
            more_is_better=True,
        )
        self._add(case, "p95 of a command, ms", {side: _p95(steps[side]) * 1000 for side in SIDES})

    async def tools(self, address: str, folder: Path, rounds: int) -> None:
        """Agents with a scripted model that use a tool or two."""
        benchmark = Benchmark(self.client, address, folder, rounds)
        benchmark.workers = self.workers
        for script in SCRIPTS:
            task = Task(what=script, skills=str(folder / "skills"))
            figures: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for _ in range(rounds):
                for side, measured in (await benchmark.run(Agent, task, script)).items():
                    if not measured.problem:
                        numbers = {k: float(v) for k, v in measured.figures.items()}
                        figures[side].append(numbers)
            for name, shown in (
                ("seconds", "wall time, s"),
                ("activities", "activities"),
                ("history events", "history events"),
                ("history bytes", "history bytes"),
            ):
                values = {
                    side: median(each[name] for each in figures[side])
                    for side in SIDES
                    if figures[side]
                }
                self._add(f"agent: {script}", shown, values)

    def _add(
        self,
        case: str,
        figure: str,
        sides: dict[str, float],
        floor: float | None = None,
        *,
        more_is_better: bool = False,
    ) -> None:
        row = Row(case=case, figure=figure, sides=sides, floor=floor, more_is_better=more_is_better)
        self.rows.append(row)

    async def _run(self, side: str, task: Task) -> Report:
        report: Report = await self.client.execute_workflow(
            Commands.run,
            Task(**{**vars(task), "side": side}),
            id=f"bench-{uuid.uuid4().hex[:12]}",
            task_queue=self.workers[side].task_queue,
        )
        return report


async def _direct_calls(count: int) -> list[float]:
    client = UnixLocalSandboxClient(inherit_host_environment=False)
    session = await client.create(options=UnixLocalSandboxClientOptions())
    await session.start()
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        await session.exec("true")
        seconds.append(time.perf_counter() - begin)
    await client.delete(session)
    return seconds


def _p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20)[-1]


def _table(rows: Sequence[Row]) -> Table:
    table = Table("case", "figure", *SIDES, "floor", "peer / sandbox-core")
    for row in rows:
        ours, peers = (row.sides.get(side) for side in SIDES)
        ratio = peers / ours if ours and peers else None
        if ratio is not None and row.more_is_better:
            ratio = 1 / ratio
        shown = [
            "" if value is None else f"{value:,.2f}" for value in (ours, peers, row.floor, ratio)
        ]
        table.add_row(row.case, row.figure, *shown)
    return table


async def measure(arguments: argparse.Namespace) -> list[Row]:
    """Run all cases and return their rows."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, DevServer() as server:
        folder = Path(name)
        for skill in ("greet", "count"):
            (folder / "skills" / skill).mkdir(parents=True)
            text = f"---\nname: {skill}\ndescription: {skill}\n---\n{skill}\n"
            (folder / "skills" / skill / "SKILL.md").write_text(text)
        client = await Client.connect(server.address)
        workers = {side: WorkerProcess(side, server.address, folder) for side in SIDES}
        for worker in workers.values():
            await worker.start()
        bench = Bench(client, workers)
        try:
            for side in SIDES:  # The first workflow of a process is slower, and does not count.
                await bench._run(side, Task(commands=5))
            await bench.commands(arguments.rounds)
            await bench.fleet(arguments.workflows, max(1, arguments.rounds // 2))
            await bench.tools(server.address, folder, arguments.rounds)
        finally:
            for worker in workers.values():
                await worker.stop()
    return bench.rows


def main() -> None:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each side has its turn")
    parser.add_argument("--workflows", type=int, default=100, help="how many at once")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments))
    Console(width=140).print(_table(rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")
    print(f"{OURS} is better where the last column is above 1")


if __name__ == "__main__":
    main()
