"""Runs a subcommand to its end, or until it is interrupted."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from sandbox_core.errors import SandboxCoreError

if TYPE_CHECKING:
    from sandbox_core.config import WorkerSettings

_errors = Console(stderr=True, soft_wrap=True)


def run(command: Coroutine[object, object, int], *, failed: int = 1) -> NoReturn:
    """Run a command, and end with the exit code that it returns; `failed` if it raises an error."""
    gc.freeze()  # What has been imported stays.
    gc.enable()
    with errors_for_users(failed):
        raise typer.Exit(asyncio.run(_interruptible(command)))


@contextmanager
def errors_for_users(code: int = 1) -> Iterator[None]:
    """Print an error that says what to do, and exit with `code`."""
    try:
        yield
    except typer.Exit:  # A RuntimeError.
        raise
    except (SandboxCoreError, FileNotFoundError, RuntimeError) as error:
        _errors.print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
        raise typer.Exit(code) from None


def worker_settings() -> WorkerSettings:
    """Return the settings of `sandbox-core worker`, or print what is wrong with them and exit."""
    from sandbox_core.config import load_configuration

    with errors_for_users():
        return load_configuration().settings.worker


async def _interruptible(command: Coroutine[object, object, int]) -> int:
    """Run a command; on SIGTERM it also stops its server and deletes its sandboxes."""
    running = asyncio.ensure_future(command)
    told: list[int] = []

    def end(signum: int) -> None:
        told.append(signum)
        running.cancel()

    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, end, signum)
    try:
        return await running
    except asyncio.CancelledError:
        return 128 + told[0]  # The shell's convention.
