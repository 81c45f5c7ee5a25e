"""The subcommands about the sandboxes of a namespace: `ls`, `show`, `exec`, `shell` and others."""

from __future__ import annotations

from typing import Annotated

import typer

from sandbox_core.cli.commands.options import (
    Address,
    AsJson,
    LookAt,
    Namespace,
    Providers,
    SandboxId,
    Storage,
)
from sandbox_core.cli.commands.running import errors_for_users, run


def ls(
    provider: Providers = None,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """List the sandboxes of a namespace: their workflows, whether these are open, and their age.

    Asks the backends from here, as `reap` does. Exits 1 if a provider could not be queried.
    """
    from sandbox_core.cli.sandboxes import list_sandboxes

    listing = list_sandboxes(
        providers=provider or [], as_json=as_json, address=address, namespace=namespace
    )
    run(listing)


def top(
    provider: Providers = None,
    every: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to wait after each look.")
    ] = "5s",
    ui: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The Temporal UI; by default that of a local server or of Temporal Cloud.",
        ),
    ] = None,
    storage: Storage = None,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Watch the sandboxes of a namespace in a terminal, and what runs in the selected one.

    `o` opens the workflow of the selected sandbox in the Temporal UI, `q` quits. Requires the extra
    `top`.
    """
    from sandbox_core.cli.durations import parse_duration

    with errors_for_users():
        try:
            from sandbox_core.cli.top import watch_sandboxes
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "textual":
                raise
            raise RuntimeError("top requires textual: pip install 'sandbox-core[top]'") from error
        interval = parse_duration(every, "--every")
    watching = watch_sandboxes(
        providers=provider or [],
        every=interval,
        ui=ui,
        storage=storage,
        address=address,
        namespace=namespace,
    )
    run(watching)


def show(
    sandbox_id: SandboxId,
    provider: LookAt = None,
    storage: Storage = None,
    as_json: AsJson = False,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Show a sandbox: its workflow, the worker that holds it, and what runs in it.

    The worker is asked with a standalone activity; the workflow's history stays as it is, and says
    which operation was the last. Without the workers' storage, it may not say.
    """
    from sandbox_core.cli.access.holder import Where
    from sandbox_core.cli.access.show import show_sandbox

    where = Where(providers=provider or (), storage=storage, address=address, namespace=namespace)
    run(show_sandbox(sandbox_id, where, as_json=as_json))


def exec_(
    sandbox_id: SandboxId,
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND...", help="The program and its arguments, after `--`."),
    ],
    stdin: Annotated[
        bool, typer.Option("--stdin", "-i", help="Read standard input, and pass it on.")
    ] = False,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="End the command after this time.")
    ] = "1h",
    user: Annotated[str | None, typer.Option(help="The user in the sandbox to run it as.")] = None,
    as_json: AsJson = False,
    provider: LookAt = None,
    storage: Storage = None,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Run a command in the sandbox of a running agent, and exit with its exit code.

    It runs in the workspace, once, as a standalone activity at the worker that holds the sandbox;
    the workflow's history stays as it is. Its output is shown when it has ended. No shell reads it:
    write `-- sh -c '...'` for one. Ctrl-C ends it. Exits 124 if it was ended at --timeout, 125 if
    it could not be run.
    """
    from sandbox_core.cli.access.exec import run_command
    from sandbox_core.cli.access.holder import Where
    from sandbox_core.cli.durations import parse_duration
    from sandbox_core.cli.outcome import FAILED

    where = Where(providers=provider or (), storage=storage, address=address, namespace=namespace)
    running = run_command(
        sandbox_id,
        command,
        where,
        timeout=parse_duration(timeout, "--timeout"),
        user=user,
        with_input=stdin,
        as_json=as_json,
    )
    run(running, failed=FAILED)


def shell(
    sandbox_id: SandboxId,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND...", help="By default bash, or sh without it."),
    ] = None,
    user: Annotated[str | None, typer.Option(help="The user in the sandbox to run it as.")] = None,
    provider: LookAt = None,
    storage: Storage = None,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Open a terminal in the sandbox of a running agent, and exit with its exit code.

    It runs in the workspace, at the worker that holds the sandbox; the workflow's history stays as
    it is. All keys go there, Ctrl-C too. `~.` at the beginning of a line ends it, as does closing
    the terminal; `~~` is a `~`. Exits 125 if it could not be run.
    """
    from sandbox_core.cli.access.holder import Where
    from sandbox_core.cli.access.shell import run_shell
    from sandbox_core.cli.outcome import FAILED

    where = Where(providers=provider or (), storage=storage, address=address, namespace=namespace)
    run(run_shell(sandbox_id, command or (), where, user=user), failed=FAILED)


def run_(
    provider: Annotated[str, typer.Argument(help="The provider, such as docker.")],
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND...", help="The program and its arguments, after `--`."),
    ],
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="End the command after this time.")
    ] = "1h",
    as_json: AsJson = False,
) -> None:
    """Run a command in a fresh sandbox, and delete the sandbox.

    The sandbox is created from here, with the credentials of this environment and the provider's
    default options, without Temporal. It is deleted also after Ctrl-C. Exit codes are those of
    `exec`.
    """
    from sandbox_core.cli.durations import parse_duration
    from sandbox_core.cli.fresh import run_fresh
    from sandbox_core.cli.outcome import FAILED

    limit = parse_duration(timeout, "--timeout")
    run(run_fresh(provider, command, timeout=limit, as_json=as_json), failed=FAILED)


def cp(
    source: Annotated[str, typer.Argument(help="A local file, `-`, or ID:PATH in a sandbox.")],
    target: Annotated[str, typer.Argument(help="Likewise.")],
    user: Annotated[str | None, typer.Option(help="The user in the sandbox.")] = None,
    provider: LookAt = None,
    storage: Storage = None,
    address: Address = None,
    namespace: Namespace = None,
) -> None:
    """Copy a file or a directory into or out of the sandbox of a running agent.

    Exactly one of the two is in a sandbox. Paths there are relative to the workspace. A target that
    is a directory, or in a sandbox ends with a slash, gets the file under its name. A directory is
    copied whole, under its name into a directory that exists; DIR/. is only what is in it. `-` is
    standard input or output. Write ./a:b for a local file whose name has a colon.
    """
    from sandbox_core.cli.access.copy import copy_file
    from sandbox_core.cli.access.holder import Where

    where = Where(providers=provider or (), storage=storage, address=address, namespace=namespace)
    run(copy_file(source, target, where, user=user))


def rm(
    sandbox_id: SandboxId,
    provider: LookAt = None,
    force: Annotated[
        bool, typer.Option("--force", help="Delete it although its workflow is open, or may be.")
    ] = False,
    address: Address = None,
    namespace: Namespace = None,
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
    run(removing)
