"""What `sandbox-core doctor` found, and how it is shown without secrets."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from rich.table import Table
from rich.text import Text

from sandbox_core.cli import tables
from sandbox_core.cli.secret_values import remove_secrets

Verdict = Literal["ok", "warning", "problem"]

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


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

    def clean(text: str) -> str:
        return remove_secrets(text, environ)

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
    tables.print_table(table)
