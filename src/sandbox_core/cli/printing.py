"""Prints results: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.table import Table

_UNCUT = 1000
"""Wider than any row, in characters."""


def print_json(value: object) -> None:
    """Print a JSON value, indented."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def new_table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return a table without lines; those of `columns` that are in `right` are aligned right.

    Without columns it has no header.
    """
    table = Table(box=None, pad_edge=False, show_header=bool(columns))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def print_table(table: Table, *, fold: bool = False) -> None:
    """Print a table with one line for each row: what is cut or wrapped cannot be copied.

    Args:
        table: The table.
        fold: Whether to fold long texts on a terminal, so that the table is not wider than it.
    """
    console = Console(highlight=False)
    if not (fold and console.is_terminal):
        console.width = _UNCUT
    with console.capture() as shown:
        console.print(table)
    for line in shown.get().splitlines():
        sys.stdout.write(f"{line.rstrip()}\n")
