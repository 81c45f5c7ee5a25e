"""Decides which errors would recur at the next attempt and are not retried."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator

from agents.sandbox.errors import SandboxError

_NEVER_RETRIED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    FileNotFoundError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""Invalid requests, and bugs in a provider."""

_NO_MISTAKE = (json.JSONDecodeError,)
"""A service or proxy that answers with an error page is asked again."""

_ERRNOS = frozenset(
    (
        errno.EACCES,
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOEXEC,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
        errno.E2BIG,
    )
)
"""Errors of a file itself, as opposed to the access to it."""

_STATUS_ATTRIBUTES = ("status_code", "status")
# Timeout, conflict, too early, too many requests.
_TRANSIENT_STATUSES = (408, 409, 425, 429)


def is_terminal(error: BaseException) -> bool:
    """Return whether an operation that failed with `error` would fail the same way again.

    A provider can say so by a `SandboxError`'s `retryable`. Otherwise it depends on the cause: an
    invalid request, a bug in the provider, a file of the wrong kind, a definitive HTTP status.
    """
    if isinstance(error, SandboxError) and error.retryable is not None:
        return not error.retryable
    return _is_known(origin_of(error)) or any(_is_refusal(each) for each in causes(error))


def reason_of_file(error: SandboxError) -> str | None:
    """Return the operating system's message for a file, if that caused `error`."""
    origin = origin_of(error)
    if isinstance(origin, OSError) and origin.errno in _ERRNOS:
        return origin.strerror
    return "Too many levels of symbolic links" if _is_symlink_loop(origin) else None


def origin_of(error: BaseException) -> BaseException:
    """Return the error that the SDK wrapped in `error`."""
    while isinstance(error, SandboxError):
        cause = error.cause or error.__cause__
        if cause is None:
            break
        error = cause
    return error


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, its cause, that one's cause, and so on."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        cause = current.cause if isinstance(current, SandboxError) else None
        current = cause or current.__cause__


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that a vendor's error carries, if it does."""
    response = getattr(error, "response", None)
    statuses = (getattr(o, name, None) for o in (error, response) for name in _STATUS_ATTRIBUTES)
    return next((status for status in statuses if isinstance(status, int)), None)


def _is_known(error: BaseException) -> bool:
    if isinstance(error, _NEVER_RETRIED) and not isinstance(error, _NO_MISTAKE):
        return True
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    return _is_symlink_loop(error)


def _is_symlink_loop(error: BaseException) -> bool:
    # As pathlib says it until Python 3.12.
    return isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from")


def _is_refusal(error: BaseException) -> bool:
    """Return whether a vendor's error carries a definitive HTTP status."""
    status = status_of(error)
    return status is not None and 400 <= status < 500 and status not in _TRANSIENT_STATUSES
