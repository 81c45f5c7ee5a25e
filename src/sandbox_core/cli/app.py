"""The commands and their options; each is carried out by a module of its own."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from sandbox_core import __version__
from sandbox_core.errors import SandboxCoreError

app = typer.Typer(
    name="sandbox",
    help="Sandboxes of OpenAI Agents SDK agents that run as Temporal workflows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
_errors = Console(stderr=True, soft_wrap=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sandbox-core {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=_errors, show_time=False, show_path=False, markup=False)],
    )


@app.command()
def providers(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    check: Annotated[
        bool, typer.Option(help="Also ask each backend whether it can be used from here.")
    ] = False,
) -> None:
    """List the providers that are installed here; exits 1 if one cannot be used."""
    from sandbox_core.cli.providers import list_providers

    raise typer.Exit(_run(list_providers(as_json=as_json, check=check)))


@app.command()
def dev(
    port: Annotated[
        int, typer.Option(help="Where the server listens; 0 takes a free port.")
    ] = 7233,
    ui_port: Annotated[int, typer.Option(help="Where the Web UI is; 0 takes a free port.")] = 8233,
    task_queue: Annotated[str, typer.Option(help="The queue of the worker.")] = "sandbox",
    db_file: Annotated[
        Path | None, typer.Option(help="Keep workflows in this file across restarts.")
    ] = None,
) -> None:
    """Run the Temporal dev server and a worker with every installed provider, until Ctrl-C."""
    from sandbox_core.cli.dev import run_dev

    raise typer.Exit(
        _run(run_dev(port=port, ui_port=ui_port, task_queue=task_queue, db_file=db_file))
    )


@app.command()
def demo(
    provider: Annotated[str, typer.Option(help="Run it in a sandbox of this provider.")] = "local",
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server up, to look at the workflow's history.")
    ] = False,
) -> None:
    """Let an agent repair a small Python project, as a workflow on a real Temporal server."""
    from sandbox_core.cli.demo import run_demo

    raise typer.Exit(_run(run_demo(provider=provider, keep=keep)))


def _run(command: Coroutine[object, object, int]) -> int:
    try:
        return asyncio.run(_interruptible(command))
    except (SandboxCoreError, FileNotFoundError, RuntimeError) as error:
        _errors.print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
        return 1


async def _interruptible(command: Coroutine[object, object, int]) -> int:
    """Run a command, which takes its server and sandboxes with it when it is told to end."""
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
        return 128 + told[0]  # As the shell reports it.
