"""Installed distributions whose requirements are not met."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from contextlib import suppress

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from sandbox_core.cli.doctor.findings import Finding
from sandbox_core.providers import ENTRY_POINT_GROUP

_SHOWN = ("sandbox-core", "temporalio", "openai-agents", "temporalio-openai-agents")
_CORE = "sandbox-core"


def check_versions() -> list[Finding]:
    """Return the versions in use, and each requirement that the installed ones do not meet.

    It looks at sandbox-core, the OpenAI plugin, and all distributions that require sandbox-core or
    offer providers.
    """
    installed: dict[str, importlib.metadata.Distribution] = {
        canonicalize_name(name): each
        for each in reversed(list(importlib.metadata.distributions()))  # The first one is imported.
        if (name := each.metadata["Name"])
    }
    shown = [f"{name} {installed[name].version}" for name in _SHOWN if name in installed]
    findings = [
        Finding(check="versions", seen=", ".join([f"Python {platform.python_version()}", *shown]))
    ]
    for name, each in sorted(installed.items()):
        if name in _SHOWN or _is_ours(each):
            unmet = dict.fromkeys(_unmet(each, installed, frozenset({""})))
            findings += (
                Finding(
                    check=f"version {name}",
                    verdict="problem",
                    seen=f"{name} {each.version} requires {required}; installed: {found}",
                    fix=f"pip install '{required}', or another version of {name}",
                )
                for required, found in unmet
            )
    return findings


def _is_ours(distribution: importlib.metadata.Distribution) -> bool:
    return any(point.group == ENTRY_POINT_GROUP for point in distribution.entry_points) or any(
        canonicalize_name(requirement.name) == _CORE for requirement in _requirements(distribution)
    )


def _unmet(
    distribution: importlib.metadata.Distribution,
    installed: dict[str, importlib.metadata.Distribution],
    extras: frozenset[str],
) -> Iterator[tuple[str, str]]:
    """Yield each requirement that is not met, and what is installed instead."""
    for requirement in _requirements(distribution):
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        text = f"{requirement.name}{requirement.specifier}"
        found = installed.get(canonicalize_name(requirement.name))
        if found is None:
            yield text, "none"
        elif not requirement.specifier.contains(found.version, prereleases=True):
            yield text, found.version
        elif requirement.extras:
            yield from _unmet(found, installed, frozenset(requirement.extras))


def _requirements(distribution: importlib.metadata.Distribution) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        with suppress(InvalidRequirement):  # Of another author, for an older standard.
            yield Requirement(text)
