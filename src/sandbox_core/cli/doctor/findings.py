"""What `sandbox-core doctor` found, and how it is shown without secrets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from rich.text import Text

from sandbox_core.cli.printing import new_table, print_json, print_table
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


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print the findings: as JSON, or in a table with each fix below what was seen."""
    if as_json:
        print_json({"verdict": worst(findings), "findings": [asdict(each) for each in findings]})
        return
    table = new_table("VERDICT", "CHECK", "SEEN")
    table.columns[0].no_wrap = True
    for each in findings:
        table.add_row(
            Text(each.verdict, style=_COLOURS[each.verdict]),
            Text(each.check),
            Text(f"{each.seen}\nfix: {each.fix}" if each.fix else each.seen),
        )
    print_table(table, fold=True)
