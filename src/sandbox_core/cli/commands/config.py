"""The subcommand about settings: `config show`."""

from __future__ import annotations

import typer

from sandbox_core.cli.commands.options import AsJson
from sandbox_core.cli.commands.running import errors_for_users


def show(as_json: AsJson = False) -> None:
    """Show every setting, its value, and where that comes from.

    Run it where the workers run, with their environment. A setting comes from an environment
    variable, otherwise from sandbox.toml in the working directory, or the file that
    SANDBOX_CORE_CONFIG names, otherwise it is the default. Exits 1 if a setting is wrong or
    unknown.
    """
    from sandbox_core.cli.config import show_configuration

    with errors_for_users():
        raise typer.Exit(show_configuration(as_json=as_json))
