"""`sandbox-core check`: tests whether a provider keeps the promises of the contract."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sandbox_core.errors import InvalidRequest, UnknownProvider
from sandbox_core.providers import FailedProvider, discover, load
from sandbox_core.providers.discovery import misspelt_groups
from sandbox_core.testing.contract import (
    LEVELS,
    Backend,
    Level,
    Outcome,
    Subject,
    run_checks,
    select,
)

CONTRACT_PAGE = "https://github.com/sandbox-core/sandbox-core/blob/main/docs/contract.md"

_MARKS = {
    "kept": "[green]kept   [/]",
    "broken": "[red]BROKEN [/]",
    "warned": "[yellow]warned [/]",
    "known": "[yellow]known  [/]",
    "skipped": "[yellow]skipped[/]",
}


async def check_provider(
    name: str,
    *,
    levels: Sequence[str],
    only: Sequence[str],
    slow: bool,
    known: Sequence[str],
    max_sandboxes: int,
    as_json: bool,
    output: Path | None,
) -> int:
    """Check an installed provider, and return 1 if it breaks a promise, 0 otherwise.

    Raises:
        UnknownProvider: It is not installed, a level does not exist, or no check is chosen.
        InvalidRequest: An item of `known` does not name a promise and the reason why it is broken.
        ProviderError: It does not load, or creates no client.
    """
    checks = select(levels=_levels(levels), only=only, slow=slow)
    if not checks:
        raise UnknownProvider(
            f"no check matches {', '.join(only)}; try for example --only 'files.*'"
        )
    reasons = _reasons(known)
    candidates = [candidate for candidate in discover() if candidate.name == name]
    if not candidates:
        installed = ", ".join(sorted({each.name for each in discover()})) or "none"
        said = [f"provider {name!r} is not installed here. Installed: {installed}."]
        raise UnknownProvider(" ".join([*said, *misspelt_groups()]))
    (result,) = load(candidates)
    if isinstance(result, FailedProvider):
        raise result.error
    # The outcomes contain what the checks log.
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    subject = Subject(
        provider=result.provider,
        module=result.candidate.module,
        backend=Backend(max_sandboxes=max_sandboxes),
        temporal=os.environ.get("TEMPORAL_ADDRESS"),
    )
    async with subject:
        if any(each.level != "package" for each in checks):
            _ = subject.client  # Without one, every check would fail in the same way.
        report = await run_checks(
            subject,
            checks,
            distribution=str(result.candidate),
            known_failures=reasons,
            tell=Teller(console).tell,
        )
    content = json.dumps(report.as_json(), indent=2)
    if output is not None:
        output.write_text(f"{content}\n", encoding="utf-8")  # noqa: ASYNC240 - all is done
    if as_json:
        sys.stdout.write(f"{content}\n")
    else:
        console.print(report.summary())
    return int(not report.passed)


def _levels(names: Sequence[str]) -> list[Level]:
    unknown = [name for name in names if name not in LEVELS]
    if unknown:
        raise UnknownProvider(f"there is no level {unknown[0]!r}; levels: {', '.join(LEVELS)}")
    return [level for level in LEVELS if level in names]


def _reasons(known: Sequence[str]) -> dict[str, str]:
    reasons = {}
    for text in known:
        name, _, why = text.partition("=")
        if not why.strip():
            raise InvalidRequest(f"--known {text!r} gives no reason; write NAME=WHY")
        if name not in {each.name for each in select()}:
            raise InvalidRequest(f"--known: there is no check {name!r}")
        reasons[name] = why.strip()
    return reasons


class Teller:
    """Shows outcomes as they arrive, and a finding that several checks share only once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._first: dict[str, str] = {}
        """The first check with each finding, by finding."""

    def tell(self, outcome: Outcome) -> None:
        """Show one outcome."""
        each, show = outcome.check, self._console.print
        mark = _MARKS.get(outcome.status, outcome.status)
        took = f"[dim]{outcome.seconds:.1f} s[/]"
        show(f"{mark} {each.level:8} {each.name}: {escape(each.promise)} {took}")
        if outcome.status in ("broken", "warned"):
            first = self._first.setdefault(outcome.seen, each.name)
            if first != each.name:
                show(f"        seen:  the same as {first}")
                return
            show(f"        seen:  {escape(outcome.seen)}")
            show(f"        costs: {escape(each.cost)}")
            show(f"        [dim]{CONTRACT_PAGE}#{each.name.replace('.', '')}[/]")
        elif outcome.status in ("skipped", "known"):
            show(f"        [dim]{escape(outcome.seen)}[/]")
