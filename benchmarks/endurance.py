"""Measures endurance: many sessions open at once, and many operations in one session.

Neither the time of an operation nor the memory of a session may grow with what went before. A case
of `bench.py`: the last tenth is compared with the first.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from peer_worker import WorkerProcess
from peer_workflows import MEGABYTE, OURS, Hold, Many, Report, Task
from rows import Row, Target, at_most, make_row, times_the_floor
from temporalio.client import Client, WorkflowHandle

TENTHS = 10
AT_ONCE = 10
"""How many workflows open the sessions of a tenth."""

GROWTH = 1.25
"""How many times its value in the first tenth a figure may have in the last: the rest is noise."""

IDLE_S = 5.0
_SETTLED_S = 8.0  # A keeper of the helper rests for five seconds, and then ends.


async def sessions(client: Client, worker: WorkerProcess, count: int) -> list[Row]:
    """Open `count` sessions, with a command in each, look at the idle worker, and delete them."""
    case = f"{count:,} sessions open"
    each = count // TENTHS // AT_ONCE
    handles: list[WorkflowHandle[Hold, None]] = []
    opening: list[float] = []
    running: list[float] = []
    memory = [_resident_set(worker.pid)]
    for _ in range(TENTHS):
        held = await asyncio.gather(
            *(
                client.start_workflow(
                    Hold.run,
                    Task(side=OURS, commands=each),
                    id=f"hold-{uuid.uuid4().hex[:12]}",
                    task_queue=worker.task_queue,
                )
                for _ in range(AT_ONCE)
            )
        )
        handles += held
        reports = await asyncio.gather(*(each.execute_update(Hold.opened) for each in held))
        opening.append(median(step for report in reports for step in report.noops))
        running.append(median(step for report in reports for step in report.steps))
        memory.append(_resident_set(worker.pid))
    await asyncio.sleep(_SETTLED_S)
    before, begin = _cpu_of_tree(worker.pid), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    used = sum(now - before.get(one, 0.0) for one, now in _cpu_of_tree(worker.pid).items())
    idle = used / (time.perf_counter() - begin)
    await asyncio.gather(*(handle.signal(Hold.let_go) for handle in handles))
    await asyncio.gather(*(handle.result() for handle in handles))
    grown = [(after - earlier) / MEGABYTE for earlier, after in pairwise(memory)]
    flat = times_the_floor(GROWTH)
    return [
        _last_and_first(case, "time to open one, p50, ms", [t * 1000 for t in opening], flat),
        _last_and_first(case, "first command in it, p50, ms", [t * 1000 for t in running], flat),
        # Not of tenths: the first is made of memory that the worker had and did not use.
        make_row(
            case,
            "memory of the worker, MB a session: last half, and first",
            {OURS: sum(grown[TENTHS // 2 :]) / (count / 2)},
            sum(grown[: TENTHS // 2]) / (count / 2),
            target=flat,
        ),
        make_row(case, "CPU while idle, % of a core", {OURS: idle * 100}, target=at_most(5)),
    ]


async def operations(client: Client, worker: WorkerProcess, count: int) -> list[Row]:
    """Run `count` commands in one session, twenty at a time."""
    case = f"{count:,} commands in one session, 20 at a time"
    handle = await client.start_workflow(
        Many.run,
        Task(side=OURS, commands=count),
        id=f"many-{uuid.uuid4().hex[:12]}",
        task_queue=worker.task_queue,
    )
    ended = asyncio.create_task(handle.result())
    memory: list[float] = []
    while not ended.done():
        memory.append(_resident_set(worker.pid) / MEGABYTE)
        await asyncio.wait({ended}, timeout=0.25)
    report: Report = await ended
    steps = [median(part) * 1000 for part in _tenths(report.steps)]
    flat = times_the_floor(GROWTH)
    return [
        _last_and_first(case, "p50 of a command, ms", steps, flat),
        _last_and_first(
            case, "memory of the worker, MB", [max(part) for part in _tenths(memory)], flat
        ),
    ]


def _last_and_first(case: str, figure: str, values: Sequence[float], target: Target) -> Row:
    return make_row(
        case, f"{figure}: last tenth, and first", {OURS: values[-1]}, values[0], target=target
    )


def _tenths(values: Sequence[float]) -> list[Sequence[float]]:
    size = max(1, len(values) // TENTHS)
    return [values[:size], values[-size:]]


def _resident_set(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = re.search(r"VmRSS:\s*(\d+) kB", status)
    return int(kilobytes[1]) * 1024 if kilobytes else 0


def _cpu_of_tree(pid: int) -> dict[int, float]:
    """Return the seconds that a process and all that live below it have used, by their threads."""
    used: dict[int, float] = {}
    pids = [pid]
    while pids:
        one = pids.pop()
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                used[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
                pids += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # It has ended.
    return used
