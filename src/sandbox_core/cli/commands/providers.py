"""The subcommands about providers: `providers`, `check`, `new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sandbox_core.cli.commands.options import AsJson
from sandbox_core.cli.commands.running import errors_for_users, run


def providers(
    as_json: AsJson = False,
    check: Annotated[
        bool, typer.Option(help="Also check whether each backend can be used from here.")
    ] = False,
) -> None:
    """List the installed providers; exits 1 if one cannot be used."""
    from sandbox_core.cli.providers import list_providers

    run(list_providers(as_json=as_json, check=check))


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

    run(
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

    with errors_for_users():
        written = write_provider(name, folder, client=client, options=options)
    for path in written:
        typer.echo(path)
    typer.echo(f"\nNext: pip install -e '{written[0].parent}[test]' && sandbox-core check {name}")
