"""The settings that are in force, where they come from, and those that are wrong."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping

from sandbox_core.cli.doctor.findings import Finding
from sandbox_core.config import (
    FILE_NAME,
    OTHER_VARIABLES,
    PREFIX,
    SETTINGS,
    Configuration,
    Setting,
    write_value,
)
from sandbox_core.providers import discover


def check_settings(
    configuration: Configuration, environ: Mapping[str, str] = os.environ
) -> list[Finding]:
    """Return a finding for the file, each problem, and each setting that is not a default."""
    file = configuration.file
    return [
        Finding(
            check="configuration file", seen=f"no {FILE_NAME} here" if file is None else str(file)
        ),
        *_problems(configuration),
        *_others(environ),
        *(
            _finding(setting, configuration)
            for setting in SETTINGS
            if setting.name in configuration.origins
        ),
    ]


def _problems(configuration: Configuration) -> Iterator[Finding]:
    for problem in configuration.problems:
        is_variable = problem.where.startswith(PREFIX)
        yield Finding(
            check=f"variable {problem.where}" if is_variable else "configuration file",
            verdict="problem",
            seen=problem.what if is_variable else f"{problem.where}: {problem.what}",
            fix=problem.fix or "correct it; see `sandbox-core config show`",
        )


def _others(environ: Mapping[str, str]) -> Iterator[Finding]:
    for setting in SETTINGS:
        text = environ.get(setting.variable)
        if text is not None and setting.is_blank(text):
            yield Finding(check=f"variable {setting.variable}", seen="empty, as if it were not set")
    for variable in OTHER_VARIABLES:
        if variable in environ:
            yield Finding(check=f"variable {variable}", seen=environ[variable] or "empty")


def _finding(setting: Setting, configuration: Configuration) -> Finding:
    origin = configuration.origins[setting.name]
    is_variable = origin == setting.variable
    check = f"variable {origin}" if is_variable else f"setting {setting.name}"
    value = setting.of(configuration.settings)
    # The location is a finding of its own, without what may be a credential.
    shown = "set" if setting.name == "storage" else write_value(value)
    seen = shown if is_variable else f"{shown} ({origin})"
    if setting.name == "helper" and not value:
        return Finding(
            check=check,
            verdict="warning",
            seen=f"{seen}: a command whose worker dies has an unknown outcome",
            fix="remove it, unless the helper cannot run in your sandboxes",
        )
    if setting.name == "disabled_providers":
        names = configuration.settings.disabled_providers
        return _disabled(check, seen, names, {candidate.name for candidate in discover()})
    return Finding(check=check, seen=seen)


def _disabled(check: str, seen: str, names: Iterable[str], installed: Iterable[str]) -> Finding:
    unknown = [name for name in names if name not in installed]
    if not unknown:
        return Finding(check=check, seen=seen)
    near = difflib.get_close_matches(unknown[0], list(installed), n=1)
    return Finding(
        check=check,
        verdict="warning",
        seen=f"{seen}: no provider {unknown[0]!r} is installed here",
        fix=f"write {near[0]!r}" if near else f"take {unknown[0]!r} off the list",
    )
