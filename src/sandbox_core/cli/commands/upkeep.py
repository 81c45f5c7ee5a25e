"""The subcommands for upkeep: `doctor`, `reap`, `storage gc`."""

from __future__ import annotations

from typing import Annotated

import typer

from sandbox_core.cli.commands.options import Address, AsJson, Namespace, Providers, Storage
from sandbox_core.cli.commands.running import run, worker_settings


def doctor(
    storage: Storage = None,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Check this host's setup, and say how to fix what is wrong.

    Run it where the workers run, with their environment. Exits 1 if there is a problem.
    """
    from sandbox_core.cli.doctor import run_doctor

    run(run_doctor(as_json=as_json, storage=storage, address=address, namespace=namespace))


def reap(
    provider: Providers = None,
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
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """List the sandboxes of closed workflows; with --delete, delete them.

    Queries the backends from here, with the credentials of this environment, or, with --every, from
    the workers. Sandboxes that live on a host, such as those of provider local, are found only on
    this host, or on that worker's. Exits 1 if a provider could not be queried or a sandbox could
    not be deleted.
    """
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
            task_queue=task_queue or worker_settings().task_queue,
            providers=provider or [],
            older_than=age,
            delete=delete,
            address=address,
            namespace=namespace,
        )
    run(reaping)


def gc(
    storage: Storage = None,
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
    address: Address = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option(help="Each namespace that uses the storage; repeat for several."),
    ] = None,
) -> None:
    """List stored objects to which nothing in Temporal refers; with --delete, delete them.

    An object is needed while a workflow that the server retains, open or closed, a schedule or a
    standalone activity refers to it. Name all namespaces that use the storage, or objects that the
    others need are deleted. Exits 1 if an object could not be deleted.
    """
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
    run(collecting)
