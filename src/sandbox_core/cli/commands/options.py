"""Options that several subcommands have."""

from __future__ import annotations

from typing import Annotated

import typer

Address = Annotated[str | None, typer.Option(help="The Temporal server.")]
Namespace = Annotated[str | None, typer.Option(help="The workflows' namespace.")]
Storage = Annotated[
    str | None, typer.Option(help="The workers' storage, as in SANDBOX_CORE_STORAGE.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Providers = Annotated[
    list[str] | None,
    typer.Option(help="Only this provider; may be repeated. By default, all that support it."),
]
LookAt = Annotated[
    list[str] | None, typer.Option("--provider", help="Look only at this one; may be repeated.")
]
SandboxId = Annotated[
    str, typer.Argument(metavar="ID", help="Its id, as `ls` shows it, or the beginning of that.")
]
