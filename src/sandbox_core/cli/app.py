"""Defines the commands and their options; each command is implemented in its own module."""

from __future__ import annotations

import asyncio
import enum
import logging
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from sandbox_core import __version__
from sandbox_core.errors import SandboxCoreError

app = typer.Typer(
    name="sandbox-core",
    help="Sandboxes of OpenAI Agents SDK agents that run as Temporal workflows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
storage_app = typer.Typer(help="Manage the storage of payloads and snapshots.")
app.add_typer(storage_app, name="storage", no_args_is_help=True)
_errors = Console(stderr=True, soft_wrap=True)


class LogFormat(str, enum.Enum):
    """The formats of a worker's log."""

    TEXT = "text"
    JSON = "json"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sandbox-core {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show it."),
    ] = False,
) -> None:
    # Rich's handler imports modules while it logs, which workflow threads must not do.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)-8s %(message)s")


@app.command()
def providers(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    check: Annotated[
        bool, typer.Option(help="Also check whether each backend can be used from here.")
    ] = False,
) -> None:
    """List the installed providers; exits 1 if one cannot be used."""
    from sandbox_core.cli.providers import list_providers

    raise typer.Exit(_run(list_providers(as_json=as_json, check=check)))


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="The provider.")],
    level: Annotated[
        list[str] | None,
        typer.Option(help="Only this level: package, session, labels or durable; may be repeated."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only checks such as 'files.*'; may be repeated."),
    ] = None,
    slow: Annotated[bool, typer.Option(help="Also run the slow checks.")] = True,
    known: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WHY",
            help="A promise known to be broken, and why; an error if it is kept; may be repeated.",
        ),
    ] = None,
    max_sandboxes: Annotated[
        int, typer.Option(min=2, help="The maximum number of sandboxes at a time.")
    ] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write the report to this file as JSON.")
    ] = None,
) -> None:
    """Check a provider against the contract, with real sandboxes of its backend.

    Level `durable` runs and kills workers; it uses TEMPORAL_ADDRESS or starts a dev server. Exits 1
    if a promise is broken.
    """
    from sandbox_core.cli.check import check_provider

    raise typer.Exit(
        _run(
            check_provider(
                name,
                levels=level or (),
                only=only or (),
                slow=slow,
                known=known or (),
                max_sandboxes=max_sandboxes,
                as_json=as_json,
                output=output,
            )
        )
    )


@app.command()
def doctor(
    storage: Annotated[
        str | None, typer.Option(help="The workers' storage, as in SANDBOX_CORE_STORAGE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    address: Annotated[str | None, typer.Option(help="The Temporal server.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The workflows' namespace.")] = None,
) -> None:
    """Check this host's setup, and say how to fix what is wrong.

    Run it where the workers run, with their environment. Exits 1 if there is a problem.
    """
    from sandbox_core.cli.doctor import run_doctor

    raise typer.Exit(
        _run(run_doctor(as_json=as_json, storage=storage, address=address, namespace=namespace))
    )


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The provider's name, such as acme.")],
    client: Annotated[
        str | None,
        typer.Option(metavar="MODULE:CLASS", help="An existing client of the Agents SDK."),
    ] = None,
    options: Annotated[
        str | None, typer.Option(metavar="MODULE:CLASS", help="The client's options class.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where to create its folder.")] = Path(),
) -> None:
    """Create the distribution of a new provider.

    It contains a working example of a backend, which passes `sandbox-core check`: replace it piece
    by piece. With --client and --options, it adapts an existing client instead.
    """
    from sandbox_core.cli.scaffold import write_provider

    try:
        written = write_provider(name, folder, client=client, options=options)
    except SandboxCoreError as error:
        _errors.print(f"[red]error:[/] {escape(error.message)}", highlight=False)
        raise typer.Exit(1) from None
    for path in written:
        typer.echo(path)
    typer.echo(f"\nNext: pip install -e '{written[0].parent}[test]' && sandbox-core check {name}")


@app.command()
def dev(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The server's port; 0 picks a free one.")
    ] = 7233,
    ui_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The Web UI's port; 0 picks a free one.")
    ] = 8233,
    task_queue: Annotated[str, typer.Option(help="The worker's task queue.")] = "sandbox",
    db_file: Annotated[
        Path | None, typer.Option(help="Keep workflows in this file across restarts.")
    ] = None,
) -> None:
    """Run the Temporal dev server and a worker with all installed providers until Ctrl-C."""
    from sandbox_core.cli.dev import run_dev

    raise typer.Exit(
        _run(run_dev(port=port, ui_port=ui_port, task_queue=task_queue, db_file=db_file))
    )


@app.command()
def worker(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE:ATTR]...",
            help="A workflow class, an activity function, or a list of them. Without any, the "
            "worker only runs sandboxes.",
        ),
    ] = None,
    task_queue: Annotated[str, typer.Option(help="The worker's task queue.")] = "sandbox",
    openai: Annotated[
        bool, typer.Option("--openai", help="Add OpenAIAgentsPlugin, which calls the models.")
    ] = False,
    address: Annotated[str | None, typer.Option(help="The Temporal server.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The namespace.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="The profile of Temporal's configuration file.")
    ] = None,
    max_concurrent_activities: Annotated[
        int | None, typer.Option(min=1, help="How many activities run at once; by default 100.")
    ] = None,
    health_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve /livez and /readyz on this port.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Prometheus metrics on this port.")
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="The format of the log.")] = LogFormat.TEXT,
    grace_period: Annotated[
        str,
        typer.Option(
            metavar="DURATION",
            help="How long running activities may take to end after SIGTERM.",
        ),
    ] = "25s",
) -> None:
    """Run a worker with all installed providers until SIGTERM or Ctrl-C.

    The connection is Temporal's own configuration: TEMPORAL_ADDRESS, TEMPORAL_API_KEY,
    TEMPORAL_TLS and so on, or a profile of its file. Modules are looked for in the current
    directory first.
    """
    from sandbox_core.cli.durations import parse_duration
    from sandbox_core.cli.worker import run_worker

    working = run_worker(
        targets=targets or [],
        task_queue=task_queue,
        address=address,
        namespace=namespace,
        profile=profile,
        openai=openai,
        max_concurrent_activities=max_concurrent_activities,
        health_port=health_port,
        metrics_port=metrics_port,
        json_log=log_format is LogFormat.JSON,
        grace=parse_duration(grace_period, "--grace-period"),
    )
    raise typer.Exit(_run(working))


@app.command()
def demo(
    provider: Annotated[
        str | None,
        typer.Option(help="The provider; by default bubblewrap if possible, otherwise local."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the server running, to inspect the history.")
    ] = False,
    chaos: Annotated[
        bool,
        typer.Option("--chaos", help="Instead run one command and kill its worker meanwhile."),
    ] = False,
) -> None:
    """Have an agent repair a small Python project, as a workflow on a real Temporal server."""
    if chaos:
        from sandbox_core.cli.chaos import run_chaos

        raise typer.Exit(_run(run_chaos(provider=provider, keep=keep)))
    from sandbox_core.cli.demo import run_demo

    raise typer.Exit(_run(run_demo(provider=provider, keep=keep)))


@app.command()
def audit(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's id.")],
    run_id: Annotated[
        str | None, typer.Option(help="One of its runs; by default the latest.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="The workers' storage, as in SANDBOX_CORE_STORAGE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    address: Annotated[str | None, typer.Option(help="The Temporal server.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The workflow's namespace.")] = None,
) -> None:
    """Show what a workflow did in its sandboxes: commands, files, outcomes, attempts, bytes.

    It is read from the workflow's history, whether it still runs or not. Without the workers'
    storage, the exit codes of commands with much output are missing.
    """
    from sandbox_core.cli.audit import run_audit

    raise typer.Exit(
        _run(
            run_audit(
                workflow_id=workflow,
                run_id=run_id,
                storage=storage,
                as_json=as_json,
                address=address,
                namespace=namespace,
            )
        )
    )


@app.command(
    help="List the sandboxes of closed workflows; with --delete, delete them."
    "\n\nQueries the backends from here, with the credentials of this environment, or, with "
    "--every, from the workers. Sandboxes that live on a host, such as those of provider local, "
    "are found only on this host, or on that worker's. Exits 1 if a provider could not be queried "
    "or a sandbox could not be deleted."
)
def reap(
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Only this provider; may be repeated. By default, all that support it."),
    ] = None,
    older_than: Annotated[
        str,
        typer.Option(metavar="AGE", help="Skip sandboxes whose workflow closed more recently."),
    ] = "10m",
    delete: Annotated[bool, typer.Option("--delete", help="Delete them.")] = False,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL",
            help="Create a Temporal Schedule that runs it on the workers; at least 1m.",
        ),
    ] = None,
    task_queue: Annotated[
        str | None, typer.Option(help="With --every: the workers' task queue; by default sandbox.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    address: Annotated[str | None, typer.Option(help="The Temporal server.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The workflows' namespace.")] = None,
) -> None:
    """List or delete the sandboxes of closed workflows."""
    from sandbox_core.cli.durations import parse_duration
    from sandbox_core.cli.reap import MIN_INTERVAL, run_reap, run_schedule

    age = parse_duration(older_than, "--older-than")
    if every is None:
        if task_queue is not None:
            raise typer.BadParameter("only allowed with --every", param_hint="--task-queue")
        reaping = run_reap(
            providers=provider or [],
            older_than=age,
            delete=delete,
            as_json=as_json,
            address=address,
            namespace=namespace,
        )
    else:
        interval = parse_duration(every, "--every")
        if interval < MIN_INTERVAL:
            raise typer.BadParameter(f"{every} is too short; use at least 1m", param_hint="--every")
        if as_json:
            raise typer.BadParameter("not allowed with --every", param_hint="--json")
        reaping = run_schedule(
            every=interval,
            task_queue=task_queue or "sandbox",
            providers=provider or [],
            older_than=age,
            delete=delete,
            address=address,
            namespace=namespace,
        )
    raise typer.Exit(_run(reaping))


@app.command(name="ls")
def list_(
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Only this provider; may be repeated. By default, all that support it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    address: Annotated[str | None, typer.Option(help="The Temporal server.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The workflows' namespace.")] = None,
) -> None:
    """List the sandboxes of a namespace: their workflows, whether these are open, and their age.

    Asks the backends from here, as `reap` does. Exits 1 if a provider could not be queried.
    """
    from sandbox_core.cli.sandboxes import list_sandboxes

    listing = list_sandboxes(
        providers=provider or [], as_json=as_json, address=address, namespace=namespace
    )
    raise typer.Exit(_run(listing))


@app.command()
def rm(
    sandbox_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, as `ls` shows it.")],
    provider: Annotated[
        list[str] | None, typer.Option(help="Only look for it at this provider; may be repeated.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Delete it although its workflow is open, or may be.")
    ] = False,
    address: Annotated[str | None, typer.Option(help="The Temporal server.")] = None,
    namespace: Annotated[str | None, typer.Option(help="The workflow's namespace.")] = None,
) -> None:
    """Delete a sandbox of a namespace."""
    from sandbox_core.cli.sandboxes import remove_sandbox

    removing = remove_sandbox(
        sandbox_id,
        providers=provider or [],
        force=force,
        address=address,
        namespace=namespace,
    )
    raise typer.Exit(_run(removing))


@storage_app.command(
    help="List stored objects to which nothing in Temporal refers; with --delete, delete them."
    "\n\nAn object is needed while a workflow that the server retains, open or closed, a schedule "
    "or a standalone activity refers to it. Name all namespaces that use the storage, or objects "
    "that the others need are deleted. Exits 1 if an object could not be deleted."
)
def gc(
    storage: Annotated[
        str | None, typer.Option(help="The workers' storage, as in SANDBOX_CORE_STORAGE.")
    ] = None,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Keep younger payloads; at least 1d.")
    ] = "7d",
    snapshots_older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Also delete snapshots, but keep younger ones. By default all are kept.",
        ),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them.")] = False,
    address: Annotated[str | None, typer.Option(help="The Temporal server.")] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option(help="Each namespace that uses the storage; repeat for several."),
    ] = None,
) -> None:
    """List or delete stored objects to which nothing in Temporal refers."""
    from sandbox_core.cli.durations import parse_duration
    from sandbox_core.cli.storage import collect_garbage

    collecting = collect_garbage(
        storage=storage,
        older_than=parse_duration(older_than, "--older-than"),
        snapshots_older_than=None
        if snapshots_older_than is None
        else parse_duration(snapshots_older_than, "--snapshots-older-than"),
        delete=delete,
        address=address,
        namespaces=namespace or [],
    )
    raise typer.Exit(_run(collecting))


def _run(command: Coroutine[object, object, int]) -> int:
    try:
        return asyncio.run(_interruptible(command))
    except (SandboxCoreError, FileNotFoundError, RuntimeError) as error:
        _errors.print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
        return 1


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
