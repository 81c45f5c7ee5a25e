"""Runs the checks of a provider, and reports their outcomes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from sandbox_core import __version__
from sandbox_core.providers import CONTRACT_VERSION
from sandbox_core.testing.contract import (
    commands,
    creates,
    durable,
    files,
    labels,
    lifecycle,
    package,
    repeats,
    saved,
    shared,
    streams,
    terminals,
    workspace,
)
from sandbox_core.testing.contract.model import (
    LEVELS,
    Check,
    Level,
    NotApplicable,
    checks_in,
    lost_without,
    raised_at,
    told,
)
from sandbox_core.testing.contract.subject import ClientNotMade, Subject

_MODULES = (
    *(package, commands, streams, terminals, files, workspace, lifecycle, labels),
    *(repeats, saved, shared, creates, durable),
)

CHECKS: tuple[Check, ...] = tuple(found for module in _MODULES for found in checks_in(module))
"""All checks, in the order of their execution."""

CHECK_TIMEOUT_S = 300.0
"""How long one check may take; whatever it waits for has a shorter limit."""

Status: TypeAlias = Literal["kept", "broken", "skipped", "known", "warned"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one check.

    "known": the promise is broken, and the author has listed it as such; it does not count as kept.
    A listed promise that is kept is "broken", because the list is out of date.
    "warned": the promise is broken but provisional, and so counts as neither.
    """

    check: Check
    status: Status
    seen: str = ""
    """What was observed if it is broken, or why it was skipped."""

    seconds: float = 0.0

    error: BaseException | None = field(default=None, repr=False, compare=False)
    """The error that was raised if it is broken."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcomes of all checks of one provider."""

    provider: str
    distribution: str = ""
    outcomes: Sequence[Outcome] = field(default_factory=tuple)

    @property
    def passed(self) -> bool:
        """Whether no promise is broken."""
        return all(outcome.status != "broken" for outcome in self.outcomes)

    def summary(self) -> str:
        """Return a one-line summary: ``contract 1: session 41/41, ... in 71 s``.

        The time is the sum of all checks' durations.
        """
        parts = []
        for level in LEVELS:
            mine = [outcome for outcome in self.outcomes if outcome.check.level == level]
            asked = [o for o in mine if o.status not in ("skipped", "warned")]
            kept = sum(outcome.status == "kept" for outcome in asked)
            if asked:
                parts.append(f"{level} {kept}/{len(asked)}")
            elif mine:
                parts.append(f"{level} none")
        for status in ("warned", "skipped"):
            count = sum(outcome.status == status for outcome in self.outcomes)
            if count:
                parts.append(f"{count} {status}")
        seconds = sum(outcome.seconds for outcome in self.outcomes)
        took = f" in {seconds:.0f} s" if parts else ""
        return f"contract {CONTRACT_VERSION}: {', '.join(parts) or 'nothing checked'}{took}"

    def as_json(self) -> dict[str, object]:
        """Return the report as JSON, for ``--json`` and for the list of providers."""
        return {
            "provider": self.provider,
            "distribution": self.distribution,
            "contract": CONTRACT_VERSION,
            "sandbox_core": __version__,
            "summary": self.summary(),
            "passed": self.passed,
            "checks": [
                {
                    "name": outcome.check.name,
                    "level": outcome.check.level,
                    "promise": outcome.check.promise,
                    "status": outcome.status,
                    "seen": outcome.seen,
                    "seconds": round(outcome.seconds, 2),
                }
                for outcome in self.outcomes
            ],
        }


def select(
    *, levels: Collection[Level] = (), only: Iterable[str] = (), slow: bool = True
) -> list[Check]:
    """Return the checks to run.

    Args:
        levels: The levels to run; all if empty.
        only: Patterns of names, such as ``files.*``; all if empty.
        slow: Whether to include those that take longer than about ten seconds.
    """
    patterns = tuple(only)
    return [
        each
        for each in CHECKS
        if (not levels or each.level in levels)
        and (not patterns or any(fnmatchcase(each.name, pattern) for pattern in patterns))
        and (slow or not each.slow)
    ]


async def run_check(
    each: Check, subject: Subject, *, known_failures: Mapping[str, str] | None = None
) -> Outcome:
    """Run one check, and delete the sandboxes that it created.

    Args:
        each: The check.
        subject: The provider under test.
        known_failures: The reasons of broken promises, by check name.
    """
    begun = time.monotonic()
    missing = [ability for ability in each.needs if not subject.can(ability)]
    status: Status
    if missing:
        return Outcome(check=each, status="skipped", seen=lost_without(missing[0]))
    raised: BaseException | None = None
    try:
        await asyncio.wait_for(each(subject), CHECK_TIMEOUT_S)
    except NotApplicable as reason:
        status, seen = "skipped", str(reason)
    except Exception as error:  # noqa: BLE001 - a provider's; whatever it raises breaks the promise
        status, seen, raised = "broken", _seen(error, subject), error
        subject.discard_shared()
    else:
        status, seen = "kept", ""
    await subject.clean_up()
    reason_known = (known_failures or {}).get(each.name)
    if reason_known is not None and status == "broken":
        status, seen = "known", f"{reason_known} ({seen})"
    elif reason_known is not None and status == "kept":
        status, seen = "broken", f"it is kept, but listed as broken: {reason_known}"
    elif each.provisional and status == "broken":
        status = "warned"
    seconds = time.monotonic() - begun
    return Outcome(check=each, status=status, seen=seen, seconds=seconds, error=raised)


def _seen(error: BaseException, subject: Subject) -> str:
    """Return an error's message and the line of the provider that raised it."""
    if isinstance(error, ClientNotMade):
        return error.message
    place = raised_at(error, subject.packages())
    if place is None:
        return told(error)
    return f"{told(error)}, at {place}"


async def run_checks(
    subject: Subject,
    checks: Iterable[Check] = CHECKS,
    *,
    distribution: str = "",
    known_failures: Mapping[str, str] | None = None,
    tell: Callable[[Outcome], None] = lambda outcome: None,
) -> Report:
    """Run checks one after the other.

    Args:
        subject: The provider under test; the caller closes it.
        checks: The checks to run.
        distribution: The provider's distribution and its version, for the report.
        known_failures: The reasons of broken promises, by check name.
        tell: Called with each outcome as soon as it is known.
    """
    outcomes = []
    for each in checks:
        outcome = await run_check(each, subject, known_failures=known_failures)
        tell(outcome)
        outcomes.append(outcome)
    return Report(
        provider=subject.provider.name, distribution=distribution, outcomes=tuple(outcomes)
    )
