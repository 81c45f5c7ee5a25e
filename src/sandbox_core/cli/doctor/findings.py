"""What `sandbox-core doctor` found, and how it is shown without secrets."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandbox_core.storage.location import redact

Verdict = Literal["ok", "warning", "problem"]

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
_UNCUT = 1000  # In a file or a pipe, one line for each text.
_SECRET_NAME = re.compile(
    r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?|AUTHORIZATION|AUTH)S?(_|$)", re.IGNORECASE
)
_SHORTEST_SECRET = 4  # What is shorter occurs in ordinary text.


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    check: str
    verdict: Verdict = "ok"
    seen: str
    fix: str = ""
    """The command or the setting that helps; empty only if the verdict is ``ok``."""


def without_secrets(
    findings: Iterable[Finding], environ: Mapping[str, str] = os.environ
) -> list[Finding]:
    """Return the findings without credentials in URLs, and without the values of secret variables.

    Vendors' errors may contain either.
    """
    values = {
        value
        for name, value in environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    }
    longest_first = sorted(values, key=len, reverse=True)

    def clean(text: str) -> str:
        for value in longest_first:
            text = text.replace(value, "[redacted]")
        return redact(text)

    return [replace(each, seen=clean(each.seen), fix=clean(each.fix)) for each in findings]


def worst(findings: Iterable[Finding]) -> Verdict:
    """Return the worst verdict."""
    order: Sequence[Verdict] = ("ok", "warning", "problem")
    return max((each.verdict for each in findings), key=order.index, default="ok")


def print_json(findings: Sequence[Finding]) -> None:
    """Print the findings for programs."""
    report = {"verdict": worst(findings), "findings": [asdict(each) for each in findings]}
    json.dump(report, sys.stdout, indent=2)
    sys.stdout.write("\n")


def print_table(findings: Sequence[Finding]) -> None:
    """Print the findings for people; each fix below what was seen."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _UNCUT
    table = Table(box=None, pad_edge=False)
    table.add_column("VERDICT", no_wrap=True)
    table.add_column("CHECK", overflow="fold")
    table.add_column("SEEN", overflow="fold")
    for each in findings:
        table.add_row(
            Text(each.verdict, style=_COLOURS[each.verdict]),
            Text(each.check),
            Text(f"{each.seen}\nfix: {each.fix}" if each.fix else each.seen),
        )
    with console.capture() as shown:
        console.print(table)
    for line in shown.get().splitlines():
        sys.stdout.write(f"{line.rstrip()}\n")
