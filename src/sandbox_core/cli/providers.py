"""`sandbox-core providers`: lists the installed providers, their abilities and problems."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from dataclasses import dataclass
from typing import cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sandbox_core.cli.ending import gather, let_end
from sandbox_core.cli.printing import print_json
from sandbox_core.config import Configuration, load_configuration
from sandbox_core.errors import ProviderLoad
from sandbox_core.providers import (
    CAPABILITIES,
    Candidate,
    FailedProvider,
    LoadedProvider,
    SupportsCheck,
    discover,
    load,
)
from sandbox_core.providers.activation import in_thread, open_client
from sandbox_core.providers.discovery import misspelt_groups, select
from sandbox_core.wire.agents_models import JsonObject

logger = logging.getLogger(__name__)

CHECKED_WITHIN_S = 30.0
"""How long the check of one backend may take."""

_CONCURRENT_CHECKS = 4
_TABLE_WIDTH = 160


@dataclass(frozen=True, kw_only=True)
class ProviderReport:
    """One provider; `status` is ``ok``, ``disabled`` or ``error``."""

    name: str
    status: str
    distribution: str
    version: str
    summary: str = ""
    api_version: int | None = None
    capabilities: dict[str, bool] | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    """Problems of a provider that can be used nevertheless."""

    def as_json(self) -> JsonObject:
        """Return the report as ``--json`` prints it."""
        return cast("JsonObject", dict(vars(self)))


async def list_providers(
    *, as_json: bool, check: bool, check_within_s: float = CHECKED_WITHIN_S
) -> int:
    """Print the installed providers and return 1 if one of them cannot be used, 0 otherwise.

    Args:
        as_json: Whether to print JSON.
        check: Whether to check that each backend can be used from here.
        check_within_s: How long each check may take, in seconds.

    Raises:
        ConfigError: A setting is wrong.
        UnknownProvider: The setting `providers` names one that is not installed.
    """
    configuration = load_configuration()
    reports = await report_providers(configuration, check=check, check_within_s=check_within_s)
    if as_json:
        print_json([report.as_json() for report in reports])
    else:
        _print(reports, configuration)
    for sentence in misspelt_groups():
        logger.warning("%s", sentence)
    code = int(any(report.status == "error" for report in reports))
    if any(report.error == _unanswered(check_within_s) for report in reports):
        # Python's exit would wait for threads of vendors' SDKs, which may never end.
        sys.stdout.flush()
        os._exit(code)
    return code


async def report_providers(
    configuration: Configuration, *, check: bool, check_within_s: float = CHECKED_WITHIN_S
) -> list[ProviderReport]:
    """Return a report of each installed provider, sorted by name.

    The other arguments are those of `list_providers`. If it is cancelled, checks that run may end,
    so that they can delete what they have created.

    Raises:
        UnknownProvider: The setting `providers` names one that is not installed.
    """
    selection = select(discover(), configuration)
    reports = [_disabled(candidate) for candidate in selection.disabled]
    loaded: list[LoadedProvider] = []
    for result in load(selection.enabled):
        if isinstance(result, FailedProvider):
            reports += [_failed(candidate, result.error.message) for candidate in result.candidates]
        else:
            loaded.append(result)
    if not check:
        reports += [_loaded(result, None) for result in loaded]
    else:
        slots = asyncio.Semaphore(_CONCURRENT_CHECKS)

        async def checked(result: LoadedProvider) -> ProviderReport:
            async with slots:
                return _loaded(result, await _problem(result, check_within_s))

        reports += await gather(*map(checked, loaded))
    return sorted(reports, key=lambda report: report.name)


def turned_off_by(name: str, configuration: Configuration) -> str:
    """Return the setting that turns a provider off, and where it is."""
    is_denied = name in configuration.settings.disabled_providers
    return configuration.named("disabled_providers" if is_denied else "providers")


async def _problem(result: LoadedProvider, within_s: float) -> str | None:
    """Return why the backend cannot be used from here, or None if it can."""
    provider = result.provider

    async def check() -> None:
        which = f"provider {provider.name!r} ({result.candidate})"
        async with open_client(provider, which) as client:
            if isinstance(provider, SupportsCheck):
                await provider.check(client)

    try:
        # In a thread, because it may block, and this loop must handle signals.
        await let_end(in_thread(lambda: asyncio.run(check()), within_s=within_s))
    except asyncio.TimeoutError:
        return _unanswered(within_s)
    except ProviderLoad as error:
        return error.reason
    except Exception as error:  # noqa: BLE001 - a plugin boundary: any error of the vendor's
        return f"{type(error).__name__}: {error}"
    return None


def _unanswered(within_s: float) -> str:
    return f"it did not answer within {within_s:g} s"


def _loaded(result: LoadedProvider, error: str | None) -> ProviderReport:
    provider = result.provider
    abilities = {name: isinstance(provider, cls) for name, cls in CAPABILITIES.items()}
    return ProviderReport(
        name=provider.name,
        status="ok" if error is None else "error",
        distribution=result.candidate.distribution,
        version=result.candidate.version,
        summary=provider.summary,
        api_version=provider.api_version,
        capabilities={
            "host_bound": provider.host_bound,
            "durable_processes": provider.durable_processes,
            **abilities,
        },
        error=error,
        warnings=result.shortcomings,
    )


def _failed(candidate: Candidate, error: str) -> ProviderReport:
    return ProviderReport(
        name=candidate.name,
        status="error",
        distribution=candidate.distribution,
        version=candidate.version,
        error=error,
    )


def _disabled(candidate: Candidate) -> ProviderReport:
    return ProviderReport(
        name=candidate.name,
        status="disabled",
        distribution=candidate.distribution,
        version=candidate.version,
    )


def _print(reports: list[ProviderReport], configuration: Configuration) -> None:
    console = Console(soft_wrap=True)
    console.width = max(console.width, _TABLE_WIDTH)
    if not reports:
        console.print("No provider is installed. Try: pip install sandbox-local", highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    own = ("NAME", "STATUS", "DISTRIBUTION", "CONTRACT", "HOST-BOUND", "DURABLE")
    for column in (*own, *CAPABILITIES):
        table.add_column(column.upper())
    for report in reports:
        abilities = report.capabilities or {}
        table.add_row(
            report.name,
            {"ok": "[green]ok[/]", "error": "[red]error[/]"}.get(report.status, report.status),
            f"{report.distribution} {report.version}",
            "" if report.api_version is None else str(report.api_version),
            *("yes" if value else "no" for value in abilities.values()),
        )
    console.print(table)
    for report in reports:
        for warning in report.warnings:
            console.print(f"[yellow]warning:[/] {escape(warning)}", highlight=False)
        if report.error is not None:
            console.print(f"[red]{escape(report.name)}:[/] {escape(report.error)}", highlight=False)
        elif report.status == "disabled":
            console.print(
                f"{escape(report.name)}: turned off by {turned_off_by(report.name, configuration)}",
                highlight=False,
            )
