"""Passes on what a command has written, and its exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from agents.sandbox.errors import ExecTransportError, SandboxError

from sandbox_core.cli.printing import print_json
from sandbox_core.wire import messages as m
from sandbox_core.wire.summaries import summarize

TIMED_OUT = 124
"""The exit code of a command that was ended at its timeout, as that of ``timeout``."""

FAILED = 125
"""The exit code if the command could not be run, as that of ``docker exec``."""


_SHOWN = {"stdout", "stderr", "exit_code", "at_most_once"}


def pass_on(result: m.ExecResponse, *, as_json: bool) -> int:
    """Write a command's output to the two streams, or all as one JSON object; return its code."""
    if as_json:
        print_json(result.model_dump(mode="json", include=_SHOWN))
    else:
        sys.stdout.buffer.write(result.stdout)
        sys.stdout.flush()
        sys.stderr.buffer.write(result.stderr)
        sys.stderr.flush()
    # A signal's number is negative on the worker's own host.
    return result.exit_code if result.exit_code >= 0 else 128 - result.exit_code


def reason_of(error: SandboxError, command: Sequence[str]) -> str:
    """Return why a command could not be run."""
    if not isinstance(error, ExecTransportError):
        return error.message
    return (
        f"{summarize(shlex.join(command))!r} could not be run: {error.message}. Check that the "
        f"sandbox has the program; for what a shell reads, write -- sh -c '...'."
    )
