"""Parses durations on the command line, and formats them."""

from __future__ import annotations

import re
from datetime import timedelta

import typer

_DURATION = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def parse_duration(text: str, option: str) -> timedelta:
    """Return a duration such as ``30s``, ``10m``, ``2h``, ``7d`` or ``1w``.

    Raises:
        typer.BadParameter: `text` is not a duration; the message names `option`.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is not a duration: write a whole number and s, m, h, d or w, such as 10m.",
            param_hint=option,
        )
    return int(found[1]) * _UNITS[found[2]]


def format_duration(duration: timedelta) -> str:
    """Return a duration in whole numbers of the largest unit that fits: ``90s`` is ``1m``."""
    unit = next((u for u in reversed(_UNITS) if duration >= _UNITS[u]), "s")
    return f"{duration // _UNITS[unit]}{unit}"
