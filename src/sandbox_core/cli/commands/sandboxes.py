"""The subcommands about the sandboxes of a namespace: `ls`, `show`, `rm`."""

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
