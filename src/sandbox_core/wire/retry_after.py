"""Parses how long a backend says to wait before a retry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from traceback import walk_tb

_GONE = (404, 410)
"""Statuses of a request that looked for something: their headers are not about the refusal."""

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
        except (ValueError, OverflowError):
            return None
        date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
        seconds = (date - datetime.now(timezone.utc)).total_seconds()
    # Also false for NaN.
    return timedelta(seconds=min(seconds, LONGEST.total_seconds())) if seconds >= 0 else None


def retry_after_of(error: BaseException) -> timedelta | None:
    """Return how long to wait according to the HTTP response behind a vendor's `error`.

    The response is found through ``retry_after`` or ``response`` of the error or its causes, and
    otherwise among the local variables where the error was raised.
    """
    for each in _causes(error):
        said = getattr(each, "retry_after", None)
        if isinstance(said, int | float | str):
            return parse_retry_after(said)
        for response in (getattr(each, "response", None), *_at_hand(each)):
            headers = _headers(response)
            if headers is not None:
                return parse_retry_after(headers.get("Retry-After"))
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _at_hand(error: BaseException) -> Iterator[object]:
    """Yield the local variables of the frames of `error`'s traceback, innermost frame first."""
    for frame, _ in reversed(list(walk_tb(error.__traceback__))):
        yield from list(frame.f_locals.values())


def _headers(response: object) -> Mapping[str, str] | None:
    """Return the headers of a refusal, whichever HTTP client's response it is.

    Nothing is asked of other objects, whose properties may do anything.
    """
    if not type(response).__name__.endswith("Response"):
        return None
    status = getattr(response, "status_code", None) or getattr(response, "status", None)
    headers = getattr(response, "headers", None)
    refused = isinstance(status, int) and status >= 400 and status not in _GONE
    return headers if refused and isinstance(headers, Mapping) else None
