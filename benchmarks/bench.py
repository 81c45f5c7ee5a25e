"""Measures commands with sandbox-core, with its peer, and without either, in one run.

There are one real dev server, one worker process per side, the same workflows and the same backend
(`local`). The lower bounds are a call of the backend without Temporal, and a no-op activity. CPU is
that of the worker process and, separately, that of all processes it has started: commands, and the
helper. Then follow, without the peer, endurance (`endurance.py`) and containers (`docker_case.py`).
Each figure with a target says whether it was reached.

    python benchmarks/bench.py --json figures.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median

from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from docker_case import docker
from endurance import operations, sessions
from peer import Benchmark
from peer_worker import SCRIPTS, WorkerProcess
from peer_workflows import OURS, SIDES, Agent, Commands, Noops, Report, Task
from rich.console import Console
from rows import (
    BELOW_PEER,
    NOT_ABOVE_PEER,
    Cpu,
    Row,
    Target,
    at_most,
    make_row,
    p95,
    table,
    times_the_peer,
)
from temporalio.client import Client

from sandbox_core.testing import DevServer

_LOCALLY = "as local activities"


@dataclass
class Bench:
    """Runs the cases and gathers their rows."""

    client: Client
    workers: dict[str, WorkerProcess]
    rows: list[Row] = field(default_factory=list)

    async def commands(self, rounds: int) -> None:
        """One command after another in a workflow, with a no-op activity after each.

        Then the same as local activities, with nothing between them.
        """
        direct = await _direct_calls(50)
        steps: dict[str, list[float]] = {side: [] for side in (*SIDES, _LOCALLY)}
        noops: list[float] = []
        cpu: dict[str, list[Cpu]] = {side: [] for side in (*SIDES, _LOCALLY)}
        for number in range(rounds):
            for side in _in_turn(number):
                mixed = await self._run(side, Task(commands=50, noops=True))
                steps[side] += mixed.steps
                noops += mixed.noops
                cpu[side].append(await self._cpu_of(side, Task(commands=100)))
            local = Task(commands=100, local_activities=True)
            steps[_LOCALLY] += (await self._run(OURS, local)).steps
            cpu[_LOCALLY].append(await self._cpu_of(OURS, local))
        floor = median(noops) + median(direct)
        case = "exec true, one after another"
        self._commands(case, steps, cpu, floor)
        locally = f"{case}, {_LOCALLY}"
        steps[OURS], cpu[OURS] = steps[_LOCALLY], cpu[_LOCALLY]
        self._commands(locally, steps, cpu, floor)

    async def _cpu_of(self, side: str, task: Task) -> Cpu:
        """Return the CPU of a task's commands, without that of the session."""
        pid = self.workers[side].pid
        before = Cpu.of(pid)
        await self._run(side, task)
        between = Cpu.of(pid)
        await self._run(side, replace(task, commands=0))
        return (between - before) - (Cpu.of(pid) - between)

    def _commands(
        self,
        case: str,
        steps: Mapping[str, Sequence[float]],
        cpu: Mapping[str, Sequence[Cpu]],
        floor: float,
    ) -> None:
        p50 = {side: median(steps[side]) * 1000 for side in SIDES}
        self._add(case, "p50, ms", p50, floor * 1000, target=BELOW_PEER)
        self._add(case, "p95, ms", {side: p95(steps[side]) * 1000 for side in SIDES})
        ratios = {side: p50[side] / 1000 / floor for side in SIDES}
        floors = "p50, in (no-op activity + direct call)"
        self._add(case, floors, ratios, 1.0, target=at_most(1.15))
        own = {side: median(each.own for each in cpu[side]) * 10 for side in SIDES}
        children = {side: median(each.children for each in cpu[side]) * 10 for side in SIDES}
        self._add(case, "CPU of the worker, ms a command", own)
        self._add(case, "CPU of its processes, ms a command", children)
        both = {side: own[side] + children[side] for side in SIDES}
        self._add(case, "CPU, ms a command", both, target=BELOW_PEER)

    async def fleet(self, count: int, rounds: int) -> None:
        """Many workflows at once: create, start, 20 commands, delete."""
        rates: dict[str, list[float]] = {side: [] for side in SIDES}
        steps: dict[str, list[float]] = {side: [] for side in SIDES}
        locally: tuple[list[float], list[float]] = ([], [])
        noops: list[float] = []

        async def run(side: str, task: Task, rates: list[float], steps: list[float]) -> None:
            begin = time.perf_counter()
            reports = await asyncio.gather(*(self._run(side, task) for _ in range(count)))
            rates.append(20 * count / (time.perf_counter() - begin))
            steps += [step for report in reports for step in report.steps]

        for number in range(rounds):
            begin = time.perf_counter()
            await asyncio.gather(*(self._run(OURS, Task(commands=20), Noops) for _ in range(count)))
            noops.append(20 * count / (time.perf_counter() - begin))
            for side in _in_turn(number):
                await run(side, Task(commands=20), rates[side], steps[side])
            await run(OURS, Task(commands=20, local_activities=True), *locally)
        case = f"{count} workflows at once, 20 commands each"
        self._fleet(case, rates, steps, noops)
        rates[OURS], steps[OURS] = locally
        self._fleet(f"{case}, {_LOCALLY}", rates, steps, noops)

    def _fleet(
        self,
        case: str,
        rates: Mapping[str, Sequence[float]],
        steps: Mapping[str, Sequence[float]],
        noops: Sequence[float],
    ) -> None:
        self._add(
            case,
            "commands a second",
            {side: median(rates[side]) for side in SIDES},
            median(noops),
            target=times_the_peer(1.3),
            more_is_better=True,
        )
        slowest = {side: p95(steps[side]) * 1000 for side in SIDES}
        self._add(case, "p95 of a command, ms", slowest, target=BELOW_PEER)

    async def tools(self, address: str, folder: Path, rounds: int) -> None:
        """Agents with a scripted model that use a tool or two."""
        benchmark = Benchmark(self.client, address, folder, rounds)
        benchmark.workers = self.workers
        for script in SCRIPTS:
            task = Task(what=script, skills=str(folder / "skills"))
            figures: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            failed: set[str] = set()
            for _ in range(rounds):
                before = {side: Cpu.of(self.workers[side].pid) for side in SIDES}
                for side, measured in (await benchmark.run(Agent, task, script)).items():
                    if measured.problem:
                        # Its model has not said all, and goes on from there in the next round.
                        failed.add(side)
                    else:
                        numbers = {k: float(v) for k, v in measured.figures.items()}
                        used = Cpu.of(self.workers[side].pid) - before[side]
                        figures[side].append({**numbers, "cpu": used.all * 1000})
            for name, shown, target in (
                ("seconds", "wall time, s", BELOW_PEER),
                ("cpu", "CPU, ms", BELOW_PEER),
                ("activities but for the lifecycle", "activities of the tools", NOT_ABOVE_PEER),
                ("activities", "activities but for the model's", NOT_ABOVE_PEER),
                ("history events", "history events", NOT_ABOVE_PEER),
                ("history bytes", "history bytes", BELOW_PEER),
            ):
                # CPU is counted in ticks of 10 ms: only many together are exact.
                middle = fmean if name == "cpu" else median
                values = {
                    side: middle(each[name] for each in figures[side])
                    for side in SIDES
                    if side not in failed
                }
                self._add(f"agent: {script}", shown, values, target=target)

    def _add(
        self,
        case: str,
        figure: str,
        sides: dict[str, float],
        floor: float | None = None,
        *,
        target: Target | None = None,
        more_is_better: bool = False,
    ) -> None:
        self.rows.append(
            make_row(case, figure, sides, floor, target=target, more_is_better=more_is_better)
        )

    async def _run(
        self, side: str, task: Task, definition: type[Commands | Noops] = Commands
    ) -> Report:
        return await self._run_on(self.workers[side], replace(task, side=side), definition)

    async def _run_on(
        self, worker: WorkerProcess, task: Task, definition: type[Commands | Noops] = Commands
    ) -> Report:
        report: Report = await self.client.execute_workflow(
            definition.__name__,
            task,
            id=f"bench-{uuid.uuid4().hex[:12]}",
            task_queue=worker.task_queue,
            result_type=Report,
        )
        return report


def _in_turn(number: int) -> Sequence[str]:
    """Return the sides in the order of a round: each is the first in every other."""
    return SIDES if number % 2 == 0 else SIDES[::-1]


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
            for side in SIDES:  # A new process is slower at first, as is the server.
                await bench._run(side, Task(commands=100))
            # More turns than elsewhere: the sides are close, and the host's speed changes.
            await bench.commands(3 * arguments.rounds)
            await bench.fleet(arguments.workflows, max(1, arguments.rounds - 2))
            await bench.tools(server.address, folder, arguments.rounds)
        finally:
            for worker in workers.values():
                await worker.stop()
        for lasting, count in (
            (operations, arguments.operations),
            (sessions, arguments.sessions),
        ):
            alone = WorkerProcess(OURS, server.address, folder)
            await alone.start()
            try:
                await bench._run_on(alone, Task(side=OURS, commands=5))
                bench.rows += await lasting(client, alone, count)
            finally:
                await alone.stop()
        bench.rows += await docker(client, server.address, folder, 20 * arguments.rounds)
    return bench.rows


def main() -> None:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each side has its turn")
    parser.add_argument("--workflows", type=int, default=100, help="how many at once")
    parser.add_argument("--sessions", type=int, default=1000, help="how many are open at once")
    parser.add_argument("--operations", type=int, default=10_000, help="how many in one session")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    rows = asyncio.run(measure(arguments))
    Console(width=170).print(table(rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")
    missed = sum(row.reached is False for row in rows)
    print(f"{OURS} is the better where the ratio is above 1; {missed} targets are not reached")


if __name__ == "__main__":
    main()
