"""The workers of the durable checks, each in its own process, which can be killed.

Each has the provider of one module. ``SANDBOX_CONTRACT_FAULT=ACTION:MARKER`` makes its first
`create` fail after the backend has made a sandbox: "kill" ends the worker, "hang" never returns,
"raise" loses the answer. With "late", no create ends before the marker file exists; then all do,
even those that were given up.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from temporalio.client import Client as TemporalClient
from temporalio.worker import Worker

from sandbox_core.config import CONFIG_VARIABLE
from sandbox_core.providers import Provider, discover
from sandbox_core.providers.discovery import DISABLED_VARIABLE, REQUIRED_VARIABLE
from sandbox_core.testing.contract.durable_workflows import HoldSandbox, RunCommand
from sandbox_core.testing.contract.subject import Client
from sandbox_core.testing.contract.whole_workflows import WHOLE
from sandbox_core.testing.worker_process import WorkerProcess, ready_plugin
from sandbox_core.worker import SandboxPlugin

FAULT_VARIABLE = "SANDBOX_CONTRACT_FAULT"
MAX_SANDBOXES_VARIABLE = "SANDBOX_CONTRACT_MAX_SANDBOXES"
SECRET_VARIABLE = "SANDBOX_CONTRACT_SECRET"  # noqa: S105 - the name of one


def start_worker(
    address: str,
    queue: str,
    module: str,
    log: Path,
    variables: Mapping[str, str],
    imports: Sequence[str] = (),
) -> WorkerProcess:
    """Start one worker, which logs to a file; `imports` is of a vendor's SDK, which takes long."""
    return WorkerProcess(
        *(f"{__name__}:run", address, queue, module),
        log=log,
        variables=variables,
        imports=imports,
    )


def _with_fault(provider: Provider, action: str, marker: Path) -> Provider:
    """Return `provider` with a client whose first create fails after it has succeeded."""
    kind = type(provider)

    async def late(self: Client, **arguments: Any) -> object:  # noqa: ANN401 - passed on as it came
        async def wait_and_create() -> object:
            while not marker.exists():  # noqa: ASYNC110, ASYNC240 - of another process
                await asyncio.sleep(0.05)
            return await cast("Any", super(type(self), self)).create(**arguments)

        # Like a call in a thread, it continues when nobody waits for it any longer.
        return await asyncio.shield(asyncio.ensure_future(wait_and_create()))

    async def create(self: Client, **arguments: Any) -> object:  # noqa: ANN401 - passed on as it came
        session = await cast("Any", super(type(self), self)).create(**arguments)
        try:
            marker.touch(exist_ok=False)  # noqa: ASYNC240 - once
        except FileExistsError:
            return session
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if action == "hang":
            await asyncio.Event().wait()
        raise ConnectionError("the backend's answer was lost")

    def create_client(self: Provider) -> Client:
        client = cast("Client", kind.create_client(self))
        failing = late if action == "late" else create
        client.__class__ = type(type(client).__name__, (type(client),), {"create": failing})
        return client

    provider.__class__ = type(kind.__name__, (kind,), {"create_client": create_client})
    return provider


def run(address: str, queue: str, module: str) -> None:
    """Run one worker until it gets SIGTERM."""
    asyncio.run(_work(address, queue, module))


async def _work(address: str, queue: str, module: str) -> None:
    provider: Provider = importlib.import_module(module).sandbox_client_provider()
    # The provider is passed explicitly; importing the other installed ones takes seconds.
    os.environ[CONFIG_VARIABLE] = os.devnull  # What the promises say does not depend on a file.
    os.environ.pop(REQUIRED_VARIABLE, None)
    os.environ[DISABLED_VARIABLE] = ",".join({each.name for each in discover()})
    action, _, marker = os.environ.get(FAULT_VARIABLE, "").partition(":")
    if action:
        provider = _with_fault(provider, action, Path(marker))
    limit = os.environ.get(MAX_SANDBOXES_VARIABLE)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with Worker(
        await TemporalClient.connect(address),
        task_queue=queue,
        workflows=[HoldSandbox, RunCommand, *WHOLE],
        plugins=[
            SandboxPlugin(
                providers=[provider],
                worker_env=[SECRET_VARIABLE],
                max_sandboxes={provider.name: int(limit)} if limit else None,
            ),
            # The last plugin runs right before the worker polls.
            ready_plugin(),
        ],
        # Otherwise Temporal makes one of the code of all imported modules, which takes longer than
        # anything else when a worker starts.
        build_id="tests",
        # A killed worker's workflows go to another one at once.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=0.5),
    ):
        await stopping.wait()
