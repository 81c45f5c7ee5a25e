"""Prints tables for people and for pipes."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

_UNCUT = 1000  # In a file or a pipe, one line for each row.


def print_table(table: Table) -> None:
    """Print a table; it is as wide as it has to be, unless this is a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNCUT
    with console.capture() as shown:
        console.print(table)
    for line in shown.get().splitlines():
        sys.stdout.write(f"{line.rstrip()}\n")
