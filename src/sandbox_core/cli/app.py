"""The table of subcommands."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.markup import escape

from sandbox_core import __version__
from sandbox_core.cli.commands import config, providers, sandboxes, servers, upkeep, workflows

app = typer.Typer(
    name="sandbox-core",
    help="Sandboxes of OpenAI Agents SDK agents that run as Temporal workflows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
storage_app = typer.Typer(help="Manage the storage of payloads and snapshots.")
config_app = typer.Typer(help="Look at the settings of sandbox.toml and of variables.")


def _flowing(docstring: str) -> str:
    """Return a docstring whose paragraphs have no line breaks: typer keeps those it finds."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)


@dataclass(frozen=True, kw_only=True)
class _Subcommand:
    """One row: the function whose arguments are the subcommand's, and examples for its help."""

    function: Callable[..., None]
    examples: tuple[str, ...] = ()

    def add_to(self, group: typer.Typer, *, panel: str | None = None) -> None:
        """Add it to a group, under a heading."""
        examples = "\n\n".join(escape(example) for example in self.examples)
        group.command(
            name=self.function.__name__.strip("_"),
            help=_flowing(self.function.__doc__ or ""),
            rich_help_panel=panel,
            epilog=f"Examples:\n\n{examples}" if examples else None,
        )(self.function)


_SUBCOMMANDS = {
    "Run": (
        _Subcommand(
            function=servers.demo,
            examples=("sandbox-core demo", "sandbox-core demo --provider docker --chaos"),
        ),
        _Subcommand(
            function=servers.dev,
            examples=("sandbox-core dev", "sandbox-core dev --port 7244 --db-file temporal.db"),
        ),
        _Subcommand(
            function=servers.worker,
            examples=(
                "sandbox-core worker --task-queue sandboxes",
                "sandbox-core worker app.workflows:Ask --openai --task-queue agents",
            ),
        ),
    ),
    "Sandboxes": (
        _Subcommand(
            function=sandboxes.ls,
            examples=("sandbox-core ls", "sandbox-core ls --provider docker --json"),
        ),
        _Subcommand(
            function=sandboxes.top,
            examples=(
                "sandbox-core top",
                "sandbox-core top --every 1s --ui https://temporal.acme.dev",
            ),
        ),
        _Subcommand(
            function=sandboxes.show,
            examples=("sandbox-core show 4f1c", "sandbox-core show 4f1c --json"),
        ),
        _Subcommand(
            function=sandboxes.exec_,
            examples=(
                "sandbox-core exec 4f1c -- git status --short",
                "sandbox-core exec 4f1c --timeout 10m -- sh -c 'pytest -q | tail'",
                "sandbox-core exec 4f1c --stdin -- patch -p1 < fix.diff",
            ),
        ),
        _Subcommand(
            function=sandboxes.shell,
            examples=("sandbox-core shell 4f1c", "sandbox-core shell 4f1c -- python3"),
        ),
        _Subcommand(
            function=sandboxes.run_,
            examples=(
                "sandbox-core run docker -- python3 --version",
                "sandbox-core run bubblewrap --timeout 10s -- sh -c 'id; ls /'",
            ),
        ),
        _Subcommand(
            function=sandboxes.cp,
            examples=(
                "sandbox-core cp 4f1c:report.html report.html",
                "sandbox-core cp fix.diff 4f1c:/workspace/",
            ),
        ),
        _Subcommand(
            function=sandboxes.rm,
            examples=("sandbox-core rm 4f1c", "sandbox-core rm 4f1c --force"),
        ),
        _Subcommand(
            function=upkeep.reap,
            examples=(
                "sandbox-core reap",
                "sandbox-core reap --delete --older-than 1h",
                "sandbox-core reap --delete --every 15m --task-queue agents",
            ),
        ),
    ),
    "Workflows": (
        _Subcommand(
            function=workflows.audit,
            examples=("sandbox-core audit repair-42", "sandbox-core audit repair-42 --json"),
        ),
        _Subcommand(
            function=workflows.logs,
            examples=("sandbox-core logs repair-42", "sandbox-core logs repair-42 --follow"),
        ),
        _Subcommand(
            function=workflows.usage,
            examples=("sandbox-core usage", "sandbox-core usage --since 7d --json"),
        ),
    ),
    "Setup": (
        _Subcommand(
            function=upkeep.doctor,
            examples=("sandbox-core doctor", "sandbox-core doctor --json"),
        ),
        _Subcommand(
            function=providers.providers,
            examples=("sandbox-core providers --check",),
        ),
    ),
    "Write a provider": (
        _Subcommand(
            function=providers.new,
            examples=(
                "sandbox-core new acme",
                "sandbox-core new acme --client acme:Client --options acme:Options",
            ),
        ),
        _Subcommand(
            function=providers.check,
            examples=("sandbox-core check acme", "sandbox-core check acme --only 'files.*'"),
        ),
    ),
}
_OF_STORAGE = (
    _Subcommand(
        function=upkeep.gc,
        examples=(
            "sandbox-core storage gc",
            "sandbox-core storage gc --delete --namespace default --namespace staging",
        ),
    ),
)
_OF_CONFIG = (
    _Subcommand(
        function=config.show,
        examples=("sandbox-core config show", "sandbox-core config show --json"),
    ),
)

for _panel, _rows in _SUBCOMMANDS.items():
    for _row in _rows:
        _row.add_to(app, panel=_panel)
for _row in _OF_STORAGE:
    _row.add_to(storage_app)
for _row in _OF_CONFIG:
    _row.add_to(config_app)
app.add_typer(config_app, name="config", no_args_is_help=True, rich_help_panel="Setup")
app.add_typer(storage_app, name="storage", no_args_is_help=True, rich_help_panel="Setup")


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
