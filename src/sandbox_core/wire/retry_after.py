"""Parses how long a backend says to wait before a retry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from traceback import walk_tb

from sandbox_core.wire.terminal_errors import causes

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
    """Return how long to wait according to a vendor's `error` or one of its causes.

    They say it in ``retry_after``, in ``headers``, or in the HTTP response that they keep in
    ``response``.
    """
    for each in causes(error):
        said = getattr(each, "retry_after", None)
        if isinstance(said, int | float | str):
            return parse_retry_after(said)
        response = getattr(each, "response", None)
        for headers in (getattr(response, "headers", None), getattr(each, "headers", None)):
            if isinstance(headers, Mapping) and headers.get("Retry-After") is not None:
                return parse_retry_after(headers.get("Retry-After"))
    return None


def retry_after_where_raised(error: BaseException) -> timedelta | None:
    """Return how long to wait according to a response in the code that raised `error`.

    For SDKs that keep nothing of a response but its text: those of E2B and, in the Agents SDK, of
    Cloudflare. Only HTTP responses that were refusals are looked at, the innermost frame first.
    """
    for each in causes(error):
        for frame, _ in reversed(list(walk_tb(each.__traceback__))):
            for value in list(frame.f_locals.values()):
                headers = _headers(value)
                if headers is not None:
                    return parse_retry_after(headers.get("Retry-After"))
    return None


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
