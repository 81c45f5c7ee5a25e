"""The subcommands about workflows, read from their histories: `audit`, `logs`, `usage`."""

from __future__ import annotations

from typing import Annotated

import typer

from sandbox_core.cli.commands.options import Address, AsJson, Namespace, Storage
from sandbox_core.cli.commands.running import run


def audit(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's id.")],
    run_id: Annotated[
        str | None, typer.Option(help="One of its runs; by default the latest.")
    ] = None,
    storage: Storage = None,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Show what a workflow did in its sandboxes: commands, files, outcomes, attempts, bytes.

    It is read from the workflow's history, whether it still runs or not. Without the workers'
    storage, the exit codes of commands with much output are missing.
    """
    from sandbox_core.cli.audit import run_audit

    run(
        run_audit(
            workflow_id=workflow,
            run_id=run_id,
            storage=storage,
            as_json=as_json,
            address=address,
            namespace=namespace,
        )
    )


def logs(
    of: Annotated[
        str, typer.Argument(metavar="WORKFLOW|ID", help="The workflow's id, or its sandbox's.")
    ],
    wait: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for what is to come, until its end.")
    ] = False,
    run_id: Annotated[
        str | None, typer.Option(help="The run to begin with; by default the latest.")
    ] = None,
    storage: Storage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Show the commands of a workflow, what they wrote, and how they ended.

    It is read from the workflow's history, which stays as it is. Output comes while a command runs
    if the workflow's client or session has live output, otherwise when it has ended.
    """
    from sandbox_core.cli.logs import run_logs

    run(
        run_logs(
            of=of,
            wait=wait,
            run_id=run_id,
            storage=storage,
            as_json=as_json,
            address=address,
            namespace=namespace,
        )
    )


def usage(
    since: Annotated[
        str, typer.Option(metavar="AGE", help="Count only what existed within this time.")
    ] = "30d",
    storage: Storage = None,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Show how long sandboxes existed, by workflow type and provider.

    It is read from the histories of all workflows that were open within the time and that the
    server still retains: from the creation of a sandbox to its deletion or, if no workflow deleted
    it, to the end of the last one that used it.
    """
    from sandbox_core.cli.durations import parse_duration
    from sandbox_core.cli.usage import run_usage

    run(
        run_usage(
            since=parse_duration(since, "--since"),
            storage=storage,
            as_json=as_json,
            address=address,
            namespace=namespace,
        )
    )
