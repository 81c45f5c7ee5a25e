"""A pytest plugin that ends a run with one line for each provider that was checked.

pytest loads it by its entry point wherever sandbox-core is installed, even in pytest-xdist's main
process, which runs no tests. So it imports nothing until there is something to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

    from sandbox_core.testing.contract import Outcome

PROPERTY = "sandbox_core_contract"
"""The property that a test of `ProviderContract` adds to its report; see `recorded`."""


def recorded(provider: str, outcome: Outcome) -> dict[str, str | float]:
    """Return a check's outcome for a test's report, in types that pytest-xdist can transfer."""
    return {
        "provider": provider,
        "check": outcome.check.name,
        "status": outcome.status,
        "seconds": outcome.seconds,
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the lines in the format of `sandbox-core check`."""
    found: dict[tuple[str, str], list[Mapping[str, str | float]]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            # There are also warnings; and a test's teardown repeats its properties.
            if getattr(report, "when", "") == "call":
                for name, value in report.user_properties:
                    if name == PROPERTY:
                        tests = report.nodeid.partition("[")[0]
                        found.setdefault((tests, str(value["provider"])), []).append(value)
    if not found:
        return
    terminalreporter.section("contract of providers")
    for (_, provider), values in sorted(found.items()):
        terminalreporter.write_line(f"{provider}: {_summary(provider, values)}")


def _summary(provider: str, values: list[Mapping[str, str | float]]) -> str:
    from sandbox_core.testing.contract import CHECKS, Outcome, Report

    by_name = {value["check"]: value for value in values}
    outcomes = [
        Outcome(
            check=check,
            status=by_name[check.name]["status"],  # type: ignore[arg-type]  # As `recorded`.
            seconds=float(by_name[check.name]["seconds"]),
        )
        for check in CHECKS
        if check.name in by_name
    ]
    return Report(provider=provider, outcomes=outcomes).summary()
