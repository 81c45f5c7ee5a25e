"""Durations as people write them: ``30s``, ``10m``, ``2h``."""

from __future__ import annotations

import re
from datetime import timedelta

_DURATION = re.compile(r"(\d{1,6})([smhdw])")
UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
"""From the smallest to the largest."""


def parse_duration(text: str) -> timedelta:
    """Return a duration such as ``30s``, ``10m``, ``2h``, ``7d`` or ``1w``.

    Raises:
        ValueError: `text` is not a duration.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is not a duration: write a whole number and s, m, h, d or w, such as 10m."
        )
    return int(found[1]) * UNITS[found[2]]


def write_duration(duration: timedelta) -> str:
    """Return a duration of whole seconds as `parse_duration` reads it: 90 seconds are ``90s``."""
    exact = (unit for unit in reversed(UNITS) if duration and not duration % UNITS[unit])
    unit = next(exact, "s")
    return f"{duration // UNITS[unit]}{unit}"
