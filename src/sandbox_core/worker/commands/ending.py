"""Ends commands: at their own timeout, at the activity's, and when nobody waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from agents.sandbox.errors import ExecTimeoutError, SandboxError
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from sandbox_core.worker.attempts import overdue, uncancellable
from sandbox_core.worker.commands.helper import Helper
from sandbox_core.worker.commands.protocol import NotAnAnswer

logger = logging.getLogger(__name__)

_ResultT = TypeVar("_ResultT")

KILL_S = 10.0
"""How long ending a command may take before the timeout or cancellation is reported anyway."""

_GRACE_S = 5.0
"""How long a call may take to return after its deadline, and again after its command was ended."""

_ANSWER_S = 5.0
"""How long Temporal may take to say whether an activity will be attempted again."""


@dataclass(frozen=True, kw_only=True)
class TimeLimit:
    """How long a command may run, and the setting that limits it."""

    seconds: float
    setting: str

    @classmethod
    def of(cls, timeout: float | None) -> TimeLimit | None:
        """Return the command's `timeout` or, without one, the limit of the current activity."""
        if timeout is not None:
            return cls(seconds=timeout, setting=f"exec(timeout={timeout:g})")
        if not activity.in_activity():
            return None
        info = activity.info()
        settings = {
            "start_to_close_timeout": info.start_to_close_timeout,
            "schedule_to_close_timeout": info.schedule_to_close_timeout,
        }
        limits = [(allowed, name) for name, allowed in settings.items() if allowed]
        if not limits:
            return None
        allowed, name = min(limits)
        seconds = allowed.total_seconds()
        # The command ends first, so that the workflow gets this error and not Temporal's timeout.
        spare = min(3.0, seconds / 20)
        return cls(seconds=seconds - spare, setting=f"{name} of {seconds:g} s")

    def error(self, command: Sequence[str], timeout: float | None) -> ExecTimeoutError:
        """Return the error for a command that exceeded the limit."""
        error = ExecTimeoutError(
            command=command,
            timeout_s=self.seconds if timeout is None else timeout,
            context={"setting": self.setting},
        )
        if timeout is None:
            error.message = (
                f"command timed out: it had not ended within the {self.setting} of its activity. "
                f"Give exec() a timeout, or the client's ActivityConfig a longer one."
            )
            error.args = (error.message,)
        return error


class Overdue(Exception):
    """A call did not return in time; its command was `ended`, or had already exited."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self.ended = ended


async def until(
    limit: TimeLimit | None,
    call: Awaitable[_ResultT],
    *,
    end: Callable[[str], Awaitable[bool]],
) -> _ResultT:
    """Await `call`; if it is cancelled, end its command unless another attempt attaches to it.

    The helper itself ends a command that exceeds its limit. `end` is for calls that do not return.

    Raises:
        Overdue: The call did not return in time, and `end` was called.
    """
    task = asyncio.ensure_future(call)
    try:
        left = None if limit is None else limit.seconds + _GRACE_S
        await asyncio.wait({task}, timeout=left)
        if task.done():
            return task.result()
        ended = await end("timeout")
        await asyncio.wait({task}, timeout=_GRACE_S)
        raise Overdue(ended=ended)
    except asyncio.CancelledError:
        if not await to_be_left_running():
            await uncancellable(end("cancelled"))
            await uncancellable(asyncio.wait({task}, timeout=_GRACE_S))
        raise
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def end_command(helper: Helper, key: str, reason: str) -> bool:
    """End a command and all its descendants; return False if it had already exited."""
    try:
        answer = await asyncio.wait_for(
            helper.ask("end", [("key", key), ("reason", reason)]), timeout=KILL_S
        )
    except (asyncio.TimeoutError, SandboxError, NotAnAnswer) as error:
        logger.warning("a command (%s) could not be ended in its sandbox: %s", reason, error)
        return True
    return answer.word != "exited"


async def to_be_left_running() -> bool:
    """Return whether the command of the current, cancelled activity belongs to another attempt.

    It does if this worker is shutting down, if the activity was paused or reset, or if Temporal
    missed its heartbeats and schedules another attempt. It does not if the workflow cancelled the
    activity or is closed, or if the start-to-close timeout has passed.
    """
    if not activity.in_activity():
        return False
    why = activity.cancellation_details()
    if why is not None and why.cancel_requested:
        return False
    if activity.info().is_local:
        return True  # The workflow task is attempted again, and attaches to the command.
    if activity.is_worker_shutdown() or (
        why is not None and (why.worker_shutdown or why.paused or why.reset)
    ):
        return True
    if why is None or overdue():
        return False
    try:
        return await asyncio.wait_for(_pending(), timeout=_ANSWER_S)
    except (RPCError, asyncio.TimeoutError):
        return True  # Unknown. An orphan is found later; another attempt would miss its command.


async def _pending() -> bool:
    info = activity.info()
    handle = activity.client().get_workflow_handle(
        info.workflow_id or "", run_id=info.workflow_run_id
    )
    described = await handle.describe()
    # The server lists the activities of a closed workflow as pending too.
    return described.status is WorkflowExecutionStatus.RUNNING and any(
        pending.activity_id == info.activity_id
        for pending in described.raw_description.pending_activities
    )
