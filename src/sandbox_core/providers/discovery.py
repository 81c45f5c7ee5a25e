"""Finds the installed providers, and selects those that a worker loads.

`discover` reads the metadata of installed distributions and imports nothing; `select` applies the
two settings. Nothing is cached: every worker discovers anew.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import importlib_metadata
from temporalio import workflow

from sandbox_core.config import Configuration, variable_of
from sandbox_core.errors import ProviderError, UnknownProvider
from sandbox_core.wire.published import how_to_install

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "sandbox_core.providers"
REQUIRED_VARIABLE = variable_of("providers")
DISABLED_VARIABLE = variable_of("disabled_providers")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A distribution's entry point for a provider name; not imported yet."""

    name: str
    module: str
    distribution: str
    version: str
    editable_path: Path | None = None
    """The source directory of an editable install."""

    @property
    def package(self) -> str:
        """The top-level package of the module."""
        return self.module.partition(".")[0].partition(":")[0]

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The candidates to load, those that are disabled, and the names that are required."""

    enabled: tuple[Candidate, ...]
    disabled: tuple[Candidate, ...]
    required: frozenset[str]


def discover(installed: importlib_metadata.EntryPoints | None = None) -> tuple[Candidate, ...]:
    """Return all installed candidates, sorted by name; imports nothing.

    A distribution that is on the path twice counts once, as the one that would be imported.

    Args:
        installed: All entry points, for callers that have read them; None to read them.

    Raises:
        ProviderError: Called in a workflow, which must not depend on what is installed.
    """
    if workflow.in_workflow():
        raise ProviderError(
            "providers are discovered when a worker starts, never in a workflow: a workflow "
            "names its provider, as in temporal_sandbox_client('daytona')."
        )
    found: dict[tuple[str, str, str], Candidate] = {}
    # `entry_points` yields each distribution once, the first on the path. It identifies them by
    # directory, so one that an interrupted pip renamed would count as another.
    installed = importlib_metadata.entry_points() if installed is None else installed
    for entry_point in installed.select(group=ENTRY_POINT_GROUP):
        candidate = _candidate(entry_point)
        if candidate is not None:
            found.setdefault((candidate.name, candidate.module, candidate.distribution), candidate)
    return tuple(sorted(found.values(), key=lambda c: (c.name, c.distribution)))


def _candidate(entry_point: importlib_metadata.EntryPoint) -> Candidate | None:
    distribution = entry_point.dist
    if distribution is None:
        return None
    try:
        name, version = distribution.name, distribution.version
    except (FileNotFoundError, KeyError):
        logger.warning(
            "%s has no readable metadata: it is not an installed distribution", entry_point
        )
        return None
    return Candidate(
        name=entry_point.name,
        module=entry_point.value,
        distribution=name,
        version=version,
        editable_path=_editable_path(distribution.read_text("direct_url.json")),
    )


def select(
    candidates: Sequence[Candidate],
    configuration: Configuration,
    *,
    passed: Collection[str] = (),
) -> Selection:
    """Apply the settings `providers` and `disabled_providers`.

    The first is an exclusive list of required providers, and all installed ones are used if it is
    not set; the second disables providers and takes precedence.

    Args:
        candidates: The installed providers.
        configuration: The settings.
        passed: The names of providers passed to the worker, which need no distribution.

    Raises:
        UnknownProvider: A required provider is neither installed nor passed.
    """
    disabled = frozenset(configuration.settings.disabled_providers)
    allow_list = frozenset(configuration.settings.providers)
    required = allow_list - disabled
    installed = {candidate.name for candidate in candidates}
    missing = sorted(required - installed - set(passed))
    if missing:
        raise UnknownProvider(
            f"{configuration.named('providers')} requires {_quoted(missing)}, which is not "
            f"installed here. Installed: {_quoted(sorted(installed)) or 'none'}. Install it "
            f"({how_to_install(*missing)}) or take it off the list."
        )
    allowed = required if allow_list else installed - disabled
    return Selection(
        enabled=tuple(c for c in candidates if c.name in allowed),
        disabled=tuple(c for c in candidates if c.name not in allowed),
        required=required,
    )


def misspelt_groups(installed: importlib_metadata.EntryPoints | None = None) -> list[str]:
    """Return a warning for each entry point in a group whose name resembles ours.

    Args:
        installed: As for `discover`.
    """
    installed = importlib_metadata.entry_points() if installed is None else installed
    groups = installed.groups - {ENTRY_POINT_GROUP}
    plain = {group: re.sub(r"[^a-z]", "", group.lower()) for group in groups}
    wanted = re.sub(r"[^a-z]", "", ENTRY_POINT_GROUP)
    meant = [g for g in sorted(groups) if difflib.get_close_matches(plain[g], [wanted], cutoff=0.9)]
    return [
        f"{candidate} names a provider {candidate.name!r} in the entry-point group {group!r}, "
        f"which nothing reads: the group is {ENTRY_POINT_GROUP!r}."
        for group in meant
        for candidate in map(_candidate, installed.select(group=group))
        if candidate is not None
    ]


def _editable_path(direct_url: str | None) -> Path | None:
    # https://packaging.python.org/en/latest/specifications/direct-url/
    try:
        origin = json.loads(direct_url or "{}")
        editable = origin.get("dir_info", {}).get("editable", False)
        return Path(url2pathname(urlsplit(origin["url"]).path)) if editable else None
    except (AttributeError, KeyError, TypeError, ValueError):  # A damaged installation.
        return None


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
