"""The workers of the durable checks, each a process of its own that can be killed.

``python -m sandbox_core.testing.contract.durable_worker ADDRESS QUEUE MODULE`` runs one with the
provider of a module. ``SANDBOX_CONTRACT_FAULT=ACTION:MARKER`` makes its first `create` fail after
the backend has made a sandbox: "kill" ends the worker, "hang" never returns.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from temporalio.client import Client as TemporalClient
from temporalio.plugin import SimplePlugin
from temporalio.worker import Worker

from sandbox_core.providers import Provider
from sandbox_core.providers.registry import DISABLED_VARIABLE, REQUIRED_VARIABLE
from sandbox_core.testing.contract.durable_workflows import HoldSandbox, RunCommand
from sandbox_core.testing.contract.subject import Client
from sandbox_core.worker import SandboxPlugin

FAULT_VARIABLE = "SANDBOX_CONTRACT_FAULT"
SECRET_VARIABLE = "SANDBOX_CONTRACT_SECRET"  # noqa: S105 - the name of one
_READY = "polling"
_MODULE = "sandbox_core.testing.contract.durable_worker"


class WorkerProcess:
    """One worker; what it logs goes to a file."""

    def __init__(
        self, address: str, queue: str, module: str, log: Path, variables: Mapping[str, str]
    ) -> None:
        with log.open("ab") as written:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, address, queue, module],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
                stdout=subprocess.PIPE,
                stderr=written,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        self._log = log

    async def ready(self) -> None:
        """Return when it polls.

        Raises:
            RuntimeError: It ended; with what it logged last.
        """
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        if line.strip() != _READY:
            logged = self._log.read_text(errors="replace").strip().splitlines()[-5:]
            raise RuntimeError(f"a worker of the checks ended: {' | '.join(logged)}")

    def kill(self) -> None:
        """End it with SIGKILL, with what it has in its process group, as an OOM killer would."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    async def ended(self) -> None:
        """Return when it has ended by itself."""
        await asyncio.to_thread(self._process.wait)


def _with_fault(provider: Provider, action: str, marker: Path) -> Provider:
    """Return `provider` with a client whose first create fails after it has succeeded."""
    kind = type(provider)

    async def create(self: Client, **arguments: Any) -> object:  # noqa: ANN401 - passed on as it came
        session = await cast("Any", super(type(self), self)).create(**arguments)
        try:
            marker.touch(exist_ok=False)  # noqa: ASYNC240 - once
        except FileExistsError:
            return session
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.Event().wait()
        return session

    def create_client(self: Provider) -> Client:
        client = cast("Client", kind.create_client(self))
        client.__class__ = type(type(client).__name__, (type(client),), {"create": create})
        return client

    provider.__class__ = type(kind.__name__, (kind,), {"create_client": create_client})
    return provider


@asynccontextmanager
async def _ready() -> AsyncIterator[None]:
    sys.stdout.write(f"{_READY}\n")
    sys.stdout.flush()
    yield


async def _work(address: str, queue: str, module: str) -> None:
    provider: Provider = importlib.import_module(module).sandbox_client_provider()
    # It is given by hand, installed or not.
    os.environ.pop(REQUIRED_VARIABLE, None)
    os.environ[DISABLED_VARIABLE] = provider.name
    action, _, marker = os.environ.get(FAULT_VARIABLE, "").partition(":")
    if action:
        provider = _with_fault(provider, action, Path(marker))
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with Worker(
        await TemporalClient.connect(address),
        task_queue=queue,
        workflows=[HoldSandbox, RunCommand],
        plugins=[
            SandboxPlugin(providers=[provider], worker_env=[SECRET_VARIABLE]),
            # What the last plugin does comes right before the worker polls.
            SimplePlugin("ready", run_context=_ready),
        ],
        # A killed worker's workflows go to another one at once.
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=0.5),
    ):
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], sys.argv[2], sys.argv[3]))
