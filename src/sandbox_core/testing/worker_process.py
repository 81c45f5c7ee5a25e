"""Runs workers in their own processes, so that tests can kill them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from temporalio.plugin import SimplePlugin

from sandbox_core.testing.fork_server import ForkServer, fork_server

_READY = "polling"


def ready_plugin() -> SimplePlugin:
    """Return the plugin that tells `WorkerProcess` that the worker polls; it must be the last."""
    return SimplePlugin("ready", run_context=_ready)


@asynccontextmanager
async def _ready() -> AsyncIterator[None]:
    sys.stdout.write(f"{_READY}\n")
    sys.stdout.flush()
    yield


class WorkerProcess:
    """One worker, which leads its own session and process group.

    Args:
        target: ``module:function`` that runs it, with `ready_plugin`.
        arguments: The function's arguments.
        variables: Environment variables in addition to this process's.
        log: The file to which its standard error is appended; None for this process's.
        server: The server that forks it; None for the one of this process.
        imports: Modules that it will import, which the server may import for all.
    """

    def __init__(
        self,
        target: str,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        log: Path | None = None,
        server: ForkServer | None = None,
        imports: Sequence[str] = (),
    ) -> None:
        read, write = os.pipe()
        self._output = os.fdopen(read)
        self._log = log
        with ExitStack() as stack:
            self._process = (server or fork_server()).start(
                target,
                *arguments,
                env={**os.environ, **(variables or {})},
                stdout=stack.enter_context(os.fdopen(write, "wb")),
                stderr=stack.enter_context(log.open("ab")) if log else None,
                imports=imports,
            )

    @property
    def pid(self) -> int:
        """The process id, which is part of the worker's identity: ``PID@HOST``."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Block until the worker polls.

        Raises:
            RuntimeError: It ended; with the end of its log.
        """
        for line in self._output:
            if line.strip() == _READY:
                return
        said = self._log.read_text(errors="replace").strip().splitlines()[-5:] if self._log else []
        raise RuntimeError(
            f"the worker ended with exit code {self._process.wait()}: {' | '.join(said)}"
        )

    def is_running(self) -> bool:
        """Return whether the process is running."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the process to end; return its exit code, or minus the signal that killed it."""
        return self._process.wait()

    def kill(self) -> None:
        """Kill the process and its process group with SIGKILL."""
        self._process.kill()

    def stop(self) -> None:
        """Ask the worker to shut down, and wait until it has."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
