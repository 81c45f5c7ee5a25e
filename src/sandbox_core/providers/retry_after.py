"""Parses what a backend says about when to try again."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

LONGEST = timedelta(hours=1)
"""The upper bound of what `parse_retry_after` returns."""


def parse_retry_after(value: float | str | None) -> timedelta | None:
    """Return how long to wait, at most `LONGEST`, or None if the backend does not say.

    Args:
        value: Seconds, or the value of an HTTP ``Retry-After`` header: seconds or a date.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(str(value))
        except ValueError:
            return None
        seconds = (date.astimezone(timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    # Also false for NaN.
    return timedelta(seconds=min(seconds, LONGEST.total_seconds())) if seconds >= 0 else None
