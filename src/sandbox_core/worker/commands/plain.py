"""Runs a command with the backend's own call, at most once, where no helper can recognize it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from agents.sandbox.errors import ExecTransportError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.wire.failures import encode_error
from sandbox_core.wire.summaries import summarize
from sandbox_core.worker.attempts import attempt
from sandbox_core.worker.commands.length import is_too_long, too_long
from sandbox_core.worker.heartbeats import tell_later_attempts, told

_ResultT = TypeVar("_ResultT")


def is_repeated(request: m.KeyedRequest) -> bool:
    """Return whether an earlier attempt may have carried out `request`, on whichever worker."""
    return attempt() > 1 or request.repeated


async def at_most_once(
    what: str,
    call: Callable[[], Awaitable[_ResultT]],
    *,
    repeated: bool,
    command: Sequence[str] = (),
) -> _ResultT:
    """Make the backend's own call, which may run a `command`.

    Raises:
        InvalidRequest: The command is too long for the worker's operating system.
        OutcomeUnknown: It may have been made before (`repeated`).
        ApplicationError: The backend failed. It is not retryable.
    """
    if repeated:
        raise _may_have_run(what)
    try:
        return await call()
    except ApplicationError:
        raise
    except Exception as error:  # A plugin boundary: no error of a backend's may cause a retry.
        raise (too_long(command) if is_too_long(error) else final(error)) from error


_MARK = "without the helper"


async def note_plain(argv: Sequence[str]) -> None:
    """Tell later attempts that this one makes the backend's own call.

    Needed where the helper cannot be asked now but could be later: it would run the command again.

    Raises:
        ExecTransportError: Temporal does not answer; nothing has run.
    """
    try:
        await tell_later_attempts(_MARK)
    except RPCError as error:
        raise ExecTransportError(
            command=argv,
            message=f"the command did not run: {error}",
            context={"reason": "not_run"},
            retryable=True,
        ) from error


def refuse_if_noted(request: m.KeyedRequest) -> None:
    """Check that no earlier attempt can have carried out `request` without the helper.

    Raises:
        OutcomeUnknown: One may have.
    """
    if told(_MARK):
        raise _may_have_run(request.summary())


def _may_have_run(what: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{summarize(what)!r} may or may not have run: an earlier attempt did not report back, "
        f"and this sandbox cannot tell. It was not repeated; look at the workspace before you "
        f"run it again."
    )


def final(error: Exception) -> ApplicationError:
    """Return `error` as a non-retryable error of the activity."""
    encoded = encode_error(error)
    return ApplicationError(
        encoded.message,
        *encoded.details,
        type=encoded.type,
        non_retryable=True,
        category=encoded.category,
    )
