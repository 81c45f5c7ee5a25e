"""Workers in processes of their own, which are killed with SIGKILL and replaced.

As a program it is such a worker: ``python harness.py ADDRESS QUEUE WORKFLOW...``, where a workflow
is ``module:Class``. It prints ``polling`` when it is ready.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

READY = "polling"
_TESTS = Path(__file__).parents[1]


class WorkerProcess:
    """One worker."""

    def __init__(self, address: str, queue: str, *workflows: type) -> None:
        names = [f"{workflow.__module__}:{workflow.__qualname__}" for workflow in workflows]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), address, queue, *names],
            env={**os.environ, "PYTHONPATH": str(_TESTS)},
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        """Return when it polls; blocks."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == READY:
                return
        raise AssertionError(f"the worker ended with exit code {self._process.wait()}")

    def kill(self) -> None:
        """End it with SIGKILL, with what it has in its process group, as an OOM killer would."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask it to shut down, and wait until it has."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


class Workers:
    """The workers of one queue; those that still run are killed at the end."""

    def __init__(self, address: str, queue: str, *workflows: type) -> None:
        self.queue = queue
        self._address, self._workflows = address, workflows
        self._started: list[WorkerProcess] = []

    async def start(self) -> WorkerProcess:
        """Start one more worker, and return it when it polls."""
        worker = WorkerProcess(self._address, self.queue, *self._workflows)
        self._started.append(worker)
        await asyncio.to_thread(worker.wait_until_ready)
        return worker

    def kill_all(self) -> None:
        """Kill those that still run."""
        for worker in self._started:
            worker.kill()


@contextmanager
def workers(address: str, queue: str, *workflows: type) -> Iterator[Workers]:
    """Yield the workers of a queue, none yet."""
    started = Workers(address, queue, *workflows)
    try:
        yield started
    finally:
        started.kill_all()


async def line_of(path: Path) -> str:
    """Return the first line of a file as soon as it is there, and whole."""

    def wait() -> str:
        script = 'until read -r line <"$1"; do sleep 0.01; done 2>/dev/null; echo "$line"'
        shown = subprocess.run(
            ["sh", "-c", script, "sh", str(path)], check=True, capture_output=True, text=True
        )
        return shown.stdout.strip()

    return await asyncio.to_thread(wait)


def running(pid: int) -> bool:
    """Return whether there is such a process, and it has not ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


async def ended(pid: int) -> None:
    """Return when the process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _work(address: str, queue: str, names: list[str]) -> None:
    from temporalio.client import Client
    from temporalio.worker import Worker

    from sandbox_core.worker import SandboxPlugin

    workflows = []
    for name in names:
        module, _, attribute = name.partition(":")
        workflows.append(getattr(importlib.import_module(module), attribute))
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with Worker(
        await Client.connect(address),
        task_queue=queue,
        workflows=workflows,
        plugins=[SandboxPlugin()],
        # A killed worker's workflows go to another one at once.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=0.5),
    ):
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], sys.argv[2], sys.argv[3:]))
