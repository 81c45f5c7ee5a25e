"""Keeps the backend's error from hiding that a command may run after all.

A request that got no answer may still be carried out, for example when a paused sandbox goes on.
The command of an attempt that ended with its worker may run. As long as the activity is attempted
again, it asks for the same command; then the outcome is unknown.
"""

from __future__ import annotations

from agents.sandbox.errors import ExecFailureError
from temporalio import activity
from temporalio.service import RPCError

from sandbox_core.wire.terminal_errors import is_terminal
from sandbox_core.worker.attempts import attempt
from sandbox_core.worker.heartbeats import tell_later_attempts, tell_with_heartbeats, told

_MARK = "unanswered"


def note_asked() -> None:
    """Note for later attempts that this one asks for its command, if it does so for seconds."""
    tell_with_heartbeats(_MARK)


def note_unanswered(error: ExecFailureError) -> None:
    """Note in a backend's error that a request before it got no answer."""
    error.context[_MARK] = True


async def hides_outcome(error: ExecFailureError, *, may_run: bool) -> bool:
    """Return whether a command may run although its activity fails with `error`, for good.

    If not for good, `error` is made retryable.

    Args:
        error: The backend's error.
        may_run: Whether it is known that the command runs, or may.
    """
    if not (may_run or error.context.get(_MARK) or told(_MARK)):
        return False
    if is_terminal(error) or _is_last_attempt():
        return True
    try:
        await tell_later_attempts(_MARK)
    except RPCError:
        return True
    error.retryable = True
    return False


def _is_last_attempt() -> bool:
    policy = activity.info().retry_policy if activity.in_activity() else None
    return policy is not None and 0 < policy.maximum_attempts <= attempt()
