"""Parses durations on the command line, and formats them."""

from __future__ import annotations

from datetime import timedelta

import typer

from sandbox_core.config import durations


def parse_duration(text: str, option: str) -> timedelta:
    """Return a duration such as ``30s``, ``10m``, ``2h``, ``7d`` or ``1w``.

    Raises:
        typer.BadParameter: `text` is not a duration; the message names `option`.
    """
    try:
        return durations.parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def format_duration(duration: timedelta) -> str:
    """Return a duration in whole numbers of the largest unit that fits: ``90s`` is ``1m``."""
    unit = next((u for u in reversed(durations.UNITS) if duration >= durations.UNITS[u]), "s")
    return f"{duration // durations.UNITS[unit]}{unit}"
