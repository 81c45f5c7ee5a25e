"""A randomized run: workflows write lines while workers and the server are killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from faults.harness import Workers, ended, result_of, workers
from support import unique
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, TimeoutError  # noqa: A004 - Temporal's
from workflows.chaos import SESSION, Lines, WriteLines, Written, difference

from sandbox_core.testing import DevServer
from sandbox_core.worker.commands.install import BASES

MINUTES = float(os.environ.get("SANDBOX_CHAOS_MINUTES", "0"))
LONGEST_S = 420 + MINUTES * 60
"""How long the rounds of one backend may take."""

_SEED = os.environ.get("SANDBOX_CHAOS_SEED")

_PAUSE_S = (0.2, 1.5)
"""How much time passes between two kills."""

_DOWN_S = (0.0, 1.0)
"""For how long a killed server is down."""

_ENDS_WITHIN_S = 300.0
"""How long the workflows may take after the last kill."""

_GONE_WITHIN_S = 20.0
"""How long a call that a killed worker has left behind may take to notice."""

_VICTIMS = ("worker",) * 3 + ("workers", "server", "server", "everything")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run, and how often something is killed meanwhile."""

    seed: int
    provider: str = "local"
    workflows: int = 4
    operations: int = 20
    workers: int = 2
    kills: int = 3


@dataclass(kw_only=True)
class Report:
    """What was run and killed, and each promise that was broken."""

    workflows: int = 0
    operations: int = 0
    workers_killed: int = 0
    servers_killed: int = 0
    outage_s: float = 0.0
    """The longest time in which there was no server, or none of the workers."""
    violations: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Count what another report counts."""
        self.workflows += other.workflows
        self.operations += other.operations
        self.workers_killed += other.workers_killed
        self.servers_killed += other.servers_killed
        self.outage_s = max(self.outage_s, other.outage_s)
        self.violations += other.violations

    def __str__(self) -> str:
        return (
            f"{self.workflows} workflows of {self.operations} operations, {self.workers_killed} "
            f"workers and {self.servers_killed} servers killed, outages of {self.outage_s:.0f} s "
            f"at most, {len(self.violations)} violations"
        )


async def run(plan: Plan, folder: Path, sandboxes: Callable[[Path], list[str]]) -> Report:
    """Run the plan and report.

    Args:
        plan: The plan.
        folder: An empty folder, for what the server and the workers write.
        sandboxes: Returns what the backend has, given the workers' folder for temporary files.
    """
    chance = random.Random(plan.seed)
    report = Report(workflows=plan.workflows, operations=plan.workflows * plan.operations)
    queue = unique("chaos")
    with (
        DevServer(db_file=folder / "temporal.db") as server,
        workers(server.address, queue, WriteLines) as fleet,
    ):
        site = _Site(plan, chance, report, server, fleet, folder / "tmp")
        await site.fill()
        client = await Client.connect(server.address)
        results = asyncio.gather(
            *[
                _outcome(
                    await client.start_workflow(
                        WriteLines.run,
                        Lines(
                            seed=chance.randrange(2**32),
                            operations=plan.operations,
                            provider=plan.provider,
                            local_activities=number % 2 == 1,
                        ),
                        id=f"{queue}-{number}",
                        task_queue=queue,
                        # For the tasks that are handed to a worker in the moment of its death.
                        task_timeout=timedelta(seconds=2),
                    )
                )
                for number in range(plan.workflows)
            ]
        )
        try:
            await site.wreck(until=results)
            for violations in await asyncio.wait_for(results, _ENDS_WITHIN_S):
                report.violations += violations
        except asyncio.TimeoutError:
            report.violations.append("not every workflow has come to its end")
        finally:
            results.cancel()
        report.violations += [f"sandbox {left} is left" for left in sandboxes(site.temporary)]
        report.violations += await _processes_left(queue)
    return report


async def rounds(provider: str, folder: Path, sandboxes: Callable[[Path], list[str]]) -> Report:
    """Run one short round, or longer ones for as long as the environment says, and report.

    ``SANDBOX_CHAOS_MINUTES`` says for how long, and ``SANDBOX_CHAOS_SEED`` with which seed it
    begins; what is killed depends on the seed, and when exactly it is hit on the machine.
    """
    total = Report()
    for number, plan in enumerate(_plans(provider)):
        inside = folder / str(number)
        inside.mkdir()
        report = await run(plan, inside, sandboxes)
        total.add(report)
        shown = [f"{provider}, seed {plan.seed}: {report}", *report.violations]
        sys.stdout.write("\n  ".join(shown) + "\n")
    sys.stdout.write(f"{provider}: {total}\n")
    return total


def _plans(provider: str) -> Iterator[Plan]:
    if not MINUTES:
        yield Plan(seed=int(_SEED or 1), provider=provider)
        return
    seed = int(_SEED) if _SEED else random.SystemRandom().randrange(10**6)
    until = time.monotonic() + MINUTES * 60
    while time.monotonic() < until:
        yield Plan(seed=seed, provider=provider, workflows=6, workers=3, kills=15)
        seed += 1


@dataclass(frozen=True)
class _Site:
    """The workers and the server of a run, which are killed and replaced."""

    plan: Plan
    chance: random.Random
    report: Report
    server: DevServer
    fleet: Workers
    temporary: Path

    async def fill(self) -> None:
        """Start the workers that are missing."""
        self.temporary.mkdir(exist_ok=True)
        missing = self.plan.workers - len(self.fleet.running())
        variables = {"TMPDIR": str(self.temporary)}
        await asyncio.gather(*[self.fleet.start(variables=variables) for _ in range(missing)])

    async def wreck(self, *, until: asyncio.Future[list[list[str]]]) -> None:
        """Kill and replace what the plan and chance say, or until that is done."""
        for _ in range(self.plan.kills):
            await asyncio.wait({until}, timeout=self.chance.uniform(*_PAUSE_S))
            if until.done():
                return
            victim, begun = self.chance.choice(_VICTIMS), time.monotonic()
            server = victim in ("server", "everything")
            if server:
                self.server.kill()
                self.report.servers_killed += 1
            if victim != "server":
                running = self.fleet.running()
                for worker in [self.chance.choice(running)] if victim == "worker" else running:
                    worker.kill()
                    self.report.workers_killed += 1
            if server:
                await asyncio.sleep(self.chance.uniform(*_DOWN_S))
                await asyncio.to_thread(self.server.start)
            outage = server or not self.fleet.running()
            await self.fill()
            if outage:
                self.report.outage_s = max(self.report.outage_s, time.monotonic() - begun)


async def _outcome(handle: WorkflowHandle[WriteLines, Written]) -> list[str]:
    """Return what went wrong in a workflow, when it has ended."""
    try:
        written = await result_of(handle)
    except WorkflowFailureError as error:
        return [f"{handle.id} failed: {_told(error)}"]
    wrong = [f"{handle.id}: {what}" for what in written.wrong]
    if written.expected != written.log:
        wrong.append(f"{handle.id}: {difference(written.expected, written.log)}")
    records = await asyncio.to_thread(_records, uuid.UUID(written.session_id).hex)
    return wrong + [f"{handle.id}: {path} is left" for path in records]


def _records(session: str) -> list[str]:
    return [str(path) for base in BASES for path in Path(base).glob(f".sandbox-*-{session}")]


def _told(error: WorkflowFailureError) -> str:
    """Return which activity failed, and how."""
    told: list[str] = []
    cause: BaseException | None = error.cause
    while cause is not None:
        if isinstance(cause, ActivityError):
            told.append(f"{cause.activity_type} {cause.activity_id}, {cause.retry_state!r}")
        elif isinstance(cause, TimeoutError):
            told.append(f"{cause.type!r}, last heartbeat {cause.last_heartbeat_details}")
        else:
            told.append(repr(cause))
        cause = cause.__cause__
    return " <- ".join(told)


async def _processes_left(queue: str) -> list[str]:
    """Return the processes of the sessions of a queue that do not end by themselves."""
    left = _processes_of(queue)
    waiting = [asyncio.create_task(ended(pid), name=command) for pid, command in left]
    if not waiting:
        return []
    _, pending = await asyncio.wait(waiting, timeout=_GONE_WITHIN_S)
    for task in pending:
        task.cancel()
    return [f"a process is left: {task.get_name()}" for task in pending]


def _processes_of(queue: str) -> list[tuple[int, str]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # It has ended, or is nobody's business.
            if f"{SESSION}={queue}-".encode() in (folder / "environ").read_bytes():
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found.append((int(folder.name), b" ".join(words).decode(errors="replace")))
    return found
