"""Workers in processes of their own, which tests kill."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from temporalio.plugin import SimplePlugin

from sandbox_core.testing.fork_server import ForkServer, fork_server

_READY = "polling"


def ready_plugin() -> SimplePlugin:
    """Return a worker's last plugin, which tells `WorkerProcess` that the worker polls now."""
    return SimplePlugin("ready", run_context=_ready)


@asynccontextmanager
async def _ready() -> AsyncIterator[None]:
    sys.stdout.write(f"{_READY}\n")
    sys.stdout.flush()
    yield


class WorkerProcess:
    """One worker, which leads a session and a process group of its own.

    Args:
        target: ``module:function`` that runs it, with `ready_plugin`.
        arguments: What the function is called with.
        variables: What its environment has besides that of this process.
        log: The file to which its standard error is added; without it, that is this process's.
        server: What forks it; without it, the one of this process.
    """

    def __init__(
        self,
        target: str,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        log: Path | None = None,
        server: ForkServer | None = None,
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
            )

    @property
    def pid(self) -> int:
        """Its process id, which is also in its identity: ``PID@HOST``."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Return when it polls; blocks.

        Raises:
            RuntimeError: It ended; with what it logged last.
        """
        for line in self._output:
            if line.strip() == _READY:
                return
        said = self._log.read_text(errors="replace").strip().splitlines()[-5:] if self._log else []
        raise RuntimeError(
            f"the worker ended with exit code {self._process.wait()}: {' | '.join(said)}"
        )

    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Return its exit code, the negative number of the signal that killed it, when it ends."""
        return self._process.wait()

    def kill(self) -> None:
        """End it with SIGKILL, with what it has in its process group, as an OOM killer would."""
        self._process.kill()

    def stop(self) -> None:
        """Ask it to shut down, and wait until it has."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
