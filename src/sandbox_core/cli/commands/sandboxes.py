"""The subcommands about the sandboxes of a namespace: `ls`, `rm`."""

from __future__ import annotations

from typing import Annotated

import typer

from sandbox_core.cli.commands.options import Address, AsJson, Namespace, Providers
from sandbox_core.cli.commands.running import run


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


def rm(
    sandbox_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, as `ls` shows it.")],
    provider: Annotated[
        list[str] | None, typer.Option(help="Only look for it at this provider; may be repeated.")
    ] = None,
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
