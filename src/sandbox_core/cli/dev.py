"""`sandbox-core dev`: the Temporal dev server and a worker with every installed provider."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from rich.console import Console
from temporalio.client import Client
from temporalio.worker import Worker

from sandbox_core import __version__
from sandbox_core.testing import DevServer
from sandbox_core.worker import SandboxPlugin


async def run_dev(*, port: int, ui_port: int, task_queue: str, db_file: Path | None) -> int:
    """Run both until SIGINT or SIGTERM, and return 0."""
    console = Console(soft_wrap=True)
    stopped = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    with DevServer(port=port, ui_port=ui_port, db_file=db_file) as server:
        client = await Client.connect(server.address)
        plugin = SandboxPlugin()
        async with Worker(
            client,
            task_queue=task_queue,
            plugins=[plugin],
            build_id=__version__,  # Temporal would hash all imported modules.
        ):
            console.print(
                f"Temporal   {server.address}\n"
                f"Web UI     http://127.0.0.1:{server.ui_port}\n"
                f"Task queue {task_queue}\n"
                f"Providers  {', '.join(plugin.provider_names) or 'none'}\n"
                f"Ctrl-C stops the server and the worker.",
                highlight=False,
            )
            await stopped.wait()
    return 0
