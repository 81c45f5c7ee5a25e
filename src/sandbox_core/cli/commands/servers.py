"""The subcommands that run something: `dev`, `worker`, `demo`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from sandbox_core.cli.commands.options import Address, Namespace
from sandbox_core.cli.commands.running import run, worker_settings


class LogFormat(str, enum.Enum):
    """The formats of a worker's log."""

    TEXT = "text"
    JSON = "json"


TaskQueue = Annotated[str | None, typer.Option(help="The worker's task queue; by default sandbox.")]


def dev(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The server's port; 0 picks a free one.")
    ] = 7233,
    ui_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The Web UI's port; 0 picks a free one.")
    ] = 8233,
    task_queue: TaskQueue = None,
    db_file: Annotated[
        Path | None, typer.Option(help="Keep workflows in this file across restarts.")
    ] = None,
) -> None:
    """Run the Temporal dev server and a worker with all installed providers until Ctrl-C."""
    from sandbox_core.cli.dev import run_dev

    queue = task_queue or worker_settings().task_queue
    run(run_dev(port=port, ui_port=ui_port, task_queue=queue, db_file=db_file))


def worker(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE:ATTR]...",
            help="A workflow class, an activity function, or a list of them. Without any, the "
            "worker only runs sandboxes.",
        ),
    ] = None,
    task_queue: TaskQueue = None,
    openai: Annotated[
        bool | None,
        typer.Option(
            "--openai/--no-openai", help="Add OpenAIAgentsPlugin, which calls the models."
        ),
    ] = None,
    address: Address = None,
    namespace: Namespace = None,
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
    otlp: Annotated[
        bool | None,
        typer.Option(
            "--otlp/--no-otlp",
            help="Export spans, and metrics without --metrics-port, as OTEL_... variables say.",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="The format of the log; by default text.")
    ] = None,
    grace_period: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long running activities may take to end after SIGTERM; by default 25s.",
        ),
    ] = None,
) -> None:
    """Run a worker with all installed providers until SIGTERM or Ctrl-C.

    The connection is Temporal's own configuration: TEMPORAL_ADDRESS, TEMPORAL_API_KEY,
    TEMPORAL_TLS and so on, or a profile of its file. Modules are looked for in the current
    directory first. What is not given here comes from SANDBOX_CORE_WORKER_... variables, otherwise
    from sandbox.toml: see `sandbox-core config show`.
    """
    from sandbox_core.cli.durations import parse_duration
    from sandbox_core.cli.worker import run_worker

    chosen = worker_settings().overridden(
        targets=tuple(targets) if targets else None,
        task_queue=task_queue,
        openai=openai,
        max_concurrent_activities=max_concurrent_activities,
        health_port=health_port,
        metrics_port=metrics_port,
        otlp=otlp,
        log_format=None if log_format is None else log_format.value,
        grace_period=None
        if grace_period is None
        else parse_duration(grace_period, "--grace-period"),
    )
    working = run_worker(chosen, address=address, namespace=namespace, profile=profile)
    run(working)


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

        run(run_chaos(provider=provider, keep=keep))
    from sandbox_core.cli.demo import run_demo

    run(run_demo(provider=provider, keep=keep))
