"""The backend's own call, at most once, where no helper recognises that it was made before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio.exceptions import ApplicationError

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.wire.failures import encode_error
from sandbox_core.wire.summaries import summarize
from sandbox_core.worker.attempts import attempt

_ResultT = TypeVar("_ResultT")


def is_repeated(request: m.KeyedRequest) -> bool:
    """Return whether an earlier attempt may have carried out `request`, on whichever worker."""
    return attempt() > 1 or request.repeated


async def at_most_once(
    what: str, call: Callable[[], Awaitable[_ResultT]], *, repeated: bool
) -> _ResultT:
    """Make the backend's own call.

    Raises:
        OutcomeUnknown: It may have been made before.
        ApplicationError: The backend failed, which ends the activity: it is not attempted again.
    """
    if repeated:
        raise OutcomeUnknown(
            f"{summarize(what)!r} may or may not have run: an earlier attempt did not report back, "
            f"and this sandbox cannot tell. It was not repeated; look at the workspace before you "
            f"run it again."
        )
    try:
        return await call()
    except ApplicationError:
        raise
    except Exception as error:  # Whatever a backend's call raises, it must not be made again.
        raise final(error) from error


def final(error: Exception) -> ApplicationError:
    """Return what the activity raises for `error` so that it is not attempted again."""
    encoded = encode_error(error)
    return ApplicationError(
        encoded.message,
        *encoded.details,
        type=encoded.type,
        non_retryable=True,
        category=encoded.category,
    )
