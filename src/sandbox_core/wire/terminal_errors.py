"""Which errors will be the same at the next attempt, and so are not retried."""

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
"""Wrong requests, and mistakes in the code of a provider."""

_NO_MISTAKE = (json.JSONDecodeError,)
"""A service, or a proxy before it, that answers with an error page is asked again."""

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
"""What is the matter with a file, and not with the way to it."""

_STATUS_ATTRIBUTES = ("status_code", "status")
# Timeout, conflict, too early, too many requests.
_TRANSIENT_STATUSES = (408, 409, 425, 429)


def is_terminal(error: BaseException) -> bool:
    """Tell whether the operation that failed with `error` fails so whenever it is attempted.

    That is what a provider says of a `SandboxError` itself; else it is in what the error was made
    from: a wrong request, a mistake in the provider's code, a file of another kind, an HTTP status
    that means "no".
    """
    if isinstance(error, SandboxError) and error.retryable is not None:
        return not error.retryable
    return _is_known(origin_of(error)) or any(_is_refusal(each) for each in _chain(error))


def reason_of_file(error: SandboxError) -> str | None:
    """Return what the operating system says is the matter with a file, if `error` is from that."""
    origin = origin_of(error)
    if isinstance(origin, OSError) and origin.errno in _ERRNOS:
        return origin.strerror
    return "Too many levels of symbolic links" if _is_symlink_loop(origin) else None


def origin_of(error: BaseException) -> BaseException:
    """Return what the SDK has made `error` from; a vendor's error may hide anything in turn."""
    while isinstance(error, SandboxError):
        cause = error.cause or error.__cause__
        if cause is None:
            break
        error = cause
    return error


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        cause = current.cause if isinstance(current, SandboxError) else None
        current = cause or current.__cause__


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
    """Tell whether a vendor's error is of an HTTP answer that will be the same next time."""
    response = getattr(error, "response", None)
    statuses = (getattr(o, name, None) for o in (error, response) for name in _STATUS_ATTRIBUTES)
    status = next((status for status in statuses if isinstance(status, int)), None)
    return status is not None and 400 <= status < 500 and status not in _TRANSIENT_STATUSES
