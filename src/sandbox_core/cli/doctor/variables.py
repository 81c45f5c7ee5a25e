"""The environment variables of sandbox-core that are in force, and those that nothing reads."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping

from sandbox_core.cli.doctor.findings import Finding
from sandbox_core.providers import discover
from sandbox_core.providers.discovery import DISABLED_VARIABLE, REQUIRED_VARIABLE
from sandbox_core.storage.location import STORAGE_VARIABLE
from sandbox_core.worker.commands.binaries import SWITCH

_PREFIX = "SANDBOX_CORE_"
KNOWN = (
    DISABLED_VARIABLE,
    REQUIRED_VARIABLE,
    STORAGE_VARIABLE,
    SWITCH,
    "SANDBOX_CORE_TEST_TEMPORAL_ADDRESS",
)
"""All variables that sandbox-core reads; the last is the provider kit's."""


def check_variables(environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Return a finding for each variable with the prefix; no value of an unknown one is shown."""
    names = sorted(name for name in environ if name.startswith(_PREFIX))
    if not names:
        return [Finding(check="variables", seen=f"no {_PREFIX} variable is set")]
    return [_finding(name, environ[name]) for name in names]


def _finding(name: str, value: str) -> Finding:
    check = f"variable {name}"
    if name not in KNOWN:
        near = difflib.get_close_matches(name, KNOWN, n=1)
        return Finding(
            check=check,
            verdict="warning",
            seen="nothing reads it",
            fix=f"rename it to {near[0]}, or unset it" if near else f"unset {name}",
        )
    if not value:
        return Finding(check=check, seen="empty, as if it were not set")
    if name == SWITCH and value.lower() not in ("off", "on"):
        return Finding(
            check=check,
            verdict="warning",
            seen="it has no effect: only `off` does",
            fix=f"set {SWITCH}=off, or unset it",
        )
    if name == SWITCH and value.lower() == "off":
        return Finding(
            check=check,
            verdict="warning",
            seen="off: a command whose worker dies has an unknown outcome",
            fix=f"unset {SWITCH}, unless the helper cannot run in your sandboxes",
        )
    if name == DISABLED_VARIABLE:
        return _disabled(check, value, {candidate.name for candidate in discover()})
    # The location is a finding of its own, without what may be a credential.
    return Finding(check=check, seen="set" if name == STORAGE_VARIABLE else value)


def _disabled(check: str, value: str, installed: Iterable[str]) -> Finding:
    names = [word for word in map(str.strip, value.split(",")) if word]
    unknown = [name for name in names if name not in installed]
    if not unknown:
        return Finding(check=check, seen=value)
    near = difflib.get_close_matches(unknown[0], list(installed), n=1)
    return Finding(
        check=check,
        verdict="warning",
        seen=f"{value}: no provider {unknown[0]!r} is installed here",
        fix=f"write {near[0]!r}" if near else f"take {unknown[0]!r} off the list",
    )
