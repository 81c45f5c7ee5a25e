"""The installed providers: whether they can be used from here, and what isolates commands."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox_core.cli.doctor.findings import Finding
from sandbox_core.cli.providers import ProviderReport, report_providers, turned_off_by
from sandbox_core.config import Configuration
from sandbox_core.errors import ProviderError
from sandbox_core.providers.contract import LOST_WITHOUT
from sandbox_core.providers.discovery import misspelt_groups

_ISOLATION = "isolation"
_CONFINED, _UNCONFINED = "bubblewrap", "local"


async def check_providers(configuration: Configuration) -> list[Finding]:
    """Return the findings about providers, and about what isolates commands on this host."""
    try:
        reports = await report_providers(configuration, check=True)
    except ProviderError as error:
        return [
            Finding(
                check="providers",
                verdict="problem",
                seen=error.message,
                fix=f"correct {configuration.named('providers')}, or install what it names",
            )
        ]
    findings = [_finding(report, configuration) for report in reports]
    if not any(report.status != "disabled" for report in reports):
        findings.append(
            Finding(
                check="providers",
                verdict="problem",
                seen="no provider is in use" if reports else "no provider is installed",
                fix=f"change {configuration.named('providers')} or "
                f"{configuration.named('disabled_providers')}"
                if reports
                else "pip install sandbox-bubblewrap (Linux) or sandbox-local",
            )
        )
    findings += (
        Finding(
            check="providers",
            verdict="warning",
            seen=sentence,
            fix="correct the group in that distribution's pyproject.toml and reinstall it",
        )
        for sentence in misspelt_groups()
    )
    return [*findings, *_isolation(reports)]


def _how_to_turn_off(name: str, configuration: Configuration) -> str:
    if configuration.settings.providers:
        return f"take it off {configuration.named('providers')}"
    disabled = configuration.named("disabled_providers")
    if configuration.settings.disabled_providers:
        return f"add it to {disabled}"
    return f"turn it off with {disabled}={name}"


def _finding(report: ProviderReport, configuration: Configuration) -> Finding:
    check, which = f"provider {report.name}", f"{report.distribution} {report.version}"
    if report.status == "disabled":
        return Finding(
            check=check, seen=f"{which}: turned off by {turned_off_by(report.name, configuration)}"
        )
    if report.error is not None:
        off = _how_to_turn_off(report.name, configuration)
        # Without abilities it did not load.
        fix = (
            f"pip install --upgrade {report.distribution}"
            if report.capabilities is None
            else "set what the backend needs in this environment"
        )
        seen = f"{which}: {' '.join(report.error.split())}"
        return Finding(check=check, verdict="problem", seen=seen, fix=f"{fix}, or {off}")
    abilities = report.capabilities or {}
    costs = [f"no {name}: {cost}" for name, cost in LOST_WITHOUT.items() if not abilities.get(name)]
    if not abilities.get("durable_processes"):
        costs.append("no durable processes: a command whose worker dies has an unknown outcome")
    seen = "; ".join([f"{which}: usable", *costs])
    if report.warnings:
        return Finding(
            check=check,
            verdict="warning",
            seen=" ".join([f"{seen}.", *report.warnings]),
            fix=f"pip install --upgrade {report.distribution}",
        )
    return Finding(check=check, seen=seen)


def _isolation(reports: Sequence[ProviderReport]) -> list[Finding]:
    """Say what confines commands, if a provider runs them unconfined as processes of this host."""
    status = {report.name: report.status for report in reports}
    if status.get(_CONFINED) == "ok":
        seen = f"{_CONFINED} confines commands on this host"
        if status.get(_UNCONFINED) == "ok":
            seen += f"; {_UNCONFINED} does not"
        return [Finding(check=_ISOLATION, seen=seen)]
    if status.get(_UNCONFINED) != "ok":
        return []
    unusable = {"error": "cannot be used here", "disabled": "is turned off"}
    return [
        Finding(
            check=_ISOLATION,
            verdict="warning",
            seen=f"{_UNCONFINED} isolates nothing: an agent's commands run as this user, with this "
            f"host's files, processes and network; {_CONFINED} "
            f"{unusable.get(status.get(_CONFINED, ''), 'is not installed')}",
            fix=f"pip install sandbox-bubblewrap (Linux), and name {_CONFINED} in workflows; use "
            f"{_UNCONFINED} only for agents that you trust with this host"
            if _CONFINED not in status
            else f"see provider {_CONFINED}; use {_UNCONFINED} only for agents that you trust with "
            f"this host",
        )
    ]
