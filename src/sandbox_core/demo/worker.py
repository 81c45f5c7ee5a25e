"""Runs a worker of the chaos demo, in its own process so that it can be killed.

``python -m sandbox_core.demo.worker ADDRESS TASK_QUEUE`` runs until its stdin is closed, so that it
does not outlive the demo. It prints nothing unless it fails.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from sandbox_core import __version__
from sandbox_core.demo.counting import CountRuns
from sandbox_core.errors import SandboxCoreError
from sandbox_core.worker import SandboxPlugin


async def work(address: str, task_queue: str) -> None:
    """Run the worker until stdin is closed.

    Raises:
        ProviderError: The provider cannot be used.
    """
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: closed.set() if not os.read(0, 1) else None)
    client = await Client.connect(address, plugins=[SandboxPlugin()])
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[CountRuns],
        build_id=__version__,  # Temporal would hash all imported modules.
        # How long a workflow waits for its last worker before another one gets it.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=0.5),
    ):
        await closed.wait()


def main() -> int:
    """Run the worker, and return the exit code."""
    logging.basicConfig(level=logging.CRITICAL)  # The demo shows failures.
    try:
        asyncio.run(work(*sys.argv[1:]))
    except SandboxCoreError as error:
        sys.stdout.write(str(error))
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # As in `sandbox_core.cli.main`.
