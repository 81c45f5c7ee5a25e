"""Refuses commands that are longer than the operating system of a sandbox accepts."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import SupportsHostProcesses
from sandbox_core.providers.registry import Provider
from sandbox_core.wire.messages import CommandRequest, Message
from sandbox_core.wire.terminal_errors import causes, status_of

LONGEST_WORD = 32 * 4096 - 1
"""Linux's MAX_ARG_STRLEN without the final null byte; no setting changes it."""

LONGEST_COMMAND = 2 * 1024 * 1024
"""Linux's ARG_MAX with the usual stack limit of 8 MiB; the environment counts too."""

_STRERROR = os.strerror(errno.E2BIG).lower()
_CONTENT_TOO_LARGE = 413

_INSTEAD = (
    "Nothing was run. Write long content to a file with session.write, and let the command read "
    "that file."
)


def check_length(provider: Provider, argv: Sequence[str]) -> None:
    """Check that a command is not too long for Linux.

    Raises:
        InvalidRequest: It is too long.
    """
    if isinstance(provider, SupportsHostProcesses) and sys.platform != "linux":
        return
    sizes = [len(word.encode("utf-8", "surrogateescape")) for word in argv]
    if (longest := max(sizes, default=0)) > LONGEST_WORD:
        raise InvalidRequest(
            f"the command is too long: one argument has {longest:,} bytes, and Linux accepts "
            f"{LONGEST_WORD:,}. {_INSTEAD}"
        )
    if (total := sum(sizes) + len(sizes)) > LONGEST_COMMAND:
        raise InvalidRequest(
            f"the command is too long: it has {total:,} bytes, and Linux accepts "
            f"{LONGEST_COMMAND:,}, including the environment. {_INSTEAD}"
        )


def too_long(request: Message, error: Exception) -> InvalidRequest | None:
    """Return the error to raise if a command failed because it is too long for its backend.

    The backend may add arguments, a shell or the environment, or have its own limit. Such a command
    was never started. None if that is not the reason.
    """
    if not isinstance(request, CommandRequest):
        return None
    if not any(_says_so(each) for each in causes(error)):
        return None
    size = len(" ".join(request.command).encode("utf-8", "surrogateescape"))
    return InvalidRequest(
        f"the command is too long for its sandbox, together with the backend's additions: it has "
        f"{size:,} bytes. Linux accepts {LONGEST_WORD:,} per argument and {LONGEST_COMMAND:,} in "
        f"total, including the environment, and a backend may accept less. {_INSTEAD}"
    )


def _says_so(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.E2BIG:
        return True
    return status_of(error) == _CONTENT_TOO_LARGE or _STRERROR in str(error).lower()
