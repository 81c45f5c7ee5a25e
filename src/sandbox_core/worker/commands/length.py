"""Refuses commands that are longer than the operating system of a sandbox accepts."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import SupportsHostProcesses
from sandbox_core.providers.registry import Provider
from sandbox_core.wire.terminal_errors import causes

LONGEST_WORD = 32 * 4096 - 1
"""Linux's MAX_ARG_STRLEN with pages of 4 KiB, without the final null byte."""

LONGEST_COMMAND = 2 * 1024 * 1024
"""Linux's ARG_MAX with the usual stack limit of 8 MiB; the environment counts too."""

_INSTEAD = (
    "Nothing was run. Write long content to a file with session.write, and let the command read "
    "that file."
)


def check_length(provider: Provider, argv: Sequence[str]) -> None:
    """Check that a command is not too long for Linux with pages of 4 KiB.

    Some backends return the error of their operating system as the command's output. On the
    worker's host, the operating system itself says what it accepts.

    Raises:
        InvalidRequest: It is too long.
    """
    if isinstance(provider, SupportsHostProcesses):
        return
    sizes = [_size(word) for word in argv]
    if (longest := max(sizes, default=0)) > LONGEST_WORD:
        raise InvalidRequest(
            f"the command is too long: one argument has {longest:,} bytes, and Linux usually "
            f"accepts {LONGEST_WORD:,}. {_INSTEAD}"
        )
    if (total := sum(sizes) + len(sizes)) > LONGEST_COMMAND:
        raise InvalidRequest(
            f"the command is too long: it has {total:,} bytes, and Linux usually accepts "
            f"{LONGEST_COMMAND:,}, including the environment. {_INSTEAD}"
        )


def too_long(argv: Sequence[str]) -> InvalidRequest:
    """Return the error for a command that its operating system did not start for its length."""
    return InvalidRequest(
        f"the command is too long for its sandbox, together with the environment and what the "
        f"backend adds: it has {sum(map(_size, argv)) + len(argv):,} bytes. Linux usually accepts "
        f"{LONGEST_WORD:,} per argument and {LONGEST_COMMAND:,} in total. {_INSTEAD}"
    )


def is_too_long(error: Exception) -> bool:
    """Return whether the worker's operating system did not start a command for its length.

    Only its error number is certain: a text or an HTTP status may be about anything.
    """
    return any(isinstance(each, OSError) and each.errno == errno.E2BIG for each in causes(error))


def _size(word: str) -> int:
    # A lone surrogate is one byte of a file name that is not UTF-8.
    return len(word.encode("utf-8", "replace"))
