"""Sends heartbeats independently of the event loop, so that blocking it does not end an activity.

A provider's SDK may block the loop, and with it the activities of all other sessions, for longer
than the heartbeat timeout. So one thread of the process sends the heartbeats of all activities.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError

logger = logging.getLogger(__name__)


# Each heartbeat replaces the details of the previous one, so all have the same.
_details: ContextVar[list[str]] = ContextVar("details")

LONGEST_S = 5.0
"""The longest interval between heartbeats, whose responses report cancellations."""


@contextmanager
def heartbeats() -> Iterator[None]:
    """Send heartbeats within this context, at least three per heartbeat timeout."""
    timeout = activity.info().heartbeat_timeout
    if timeout is None:
        yield
        return
    # Keep the details of earlier attempts, which the first heartbeat would replace.
    token = _details.set(list(activity.info().heartbeat_details))
    # The first is not sent at once: most activities end before it is due.
    beating = _Beating(copy_context(), min(timeout.total_seconds() / 3, LONGEST_S))
    _beats.add(beating)
    try:
        yield
    finally:
        beating.stop()
        _details.reset(token)


async def tell_later_attempts(mark: str) -> None:
    """Store `mark` at Temporal for the activity's next attempts, which read it with `told`.

    Raises:
        RPCError: Temporal does not answer.
        asyncio.CancelledError: The activity was cancelled meanwhile.
    """
    if not activity.in_activity():
        return
    details = _details.get([])
    details.append(mark)
    activity.heartbeat(*details)  # May be throttled, unlike the client's heartbeat below.
    handle = activity.client().get_async_activity_handle(task_token=activity.info().task_token)
    try:
        await handle.heartbeat(*details)
    except AsyncActivityCancelledError:
        raise asyncio.CancelledError from None


def tell_with_heartbeats(mark: str) -> None:
    """Store `mark` for the activity's next attempts with the heartbeats that it sends anyway."""
    details = _details.get([])
    if mark not in details:
        details.append(mark)


def told(mark: str) -> bool:
    """Return whether an earlier attempt of the current activity stored `mark`."""
    return activity.in_activity() and mark in activity.info().heartbeat_details


class _Beating:
    """The heartbeats of one activity."""

    def __init__(self, context: Context, interval_s: float) -> None:
        self.interval_s = interval_s
        self._context: Context | None = context
        self._lock = threading.Lock()

    @property
    def has_ended(self) -> bool:
        """Whether no further heartbeat is to be sent."""
        return self._context is None

    def beat(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Send one, unless the activity has ended; return whether more will follow."""
        with self._lock:
            if self._context is None:
                return False
            loop.run_until_complete(self._context.run(loop.create_task, _heartbeat()))
            return True

    def stop(self) -> None:
        """Wait until no heartbeat is being sent; none will be sent later."""
        with self._lock:
            self._context = None


async def _heartbeat() -> None:
    activity.heartbeat(*_details.get([]))
    # A task of this loop sends it, and nothing else waits for that task.
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


class _Beats:
    """The thread, which starts with the first activity, and its schedule."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, _Beating]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, beating: _Beating) -> None:
        with self._changed:
            first = self._push(beating)
            if self._thread is None or not self._thread.is_alive():  # For example after a fork.
                self._thread = threading.Thread(
                    target=self._run, name="sandbox-core-heartbeats", daemon=True
                )
                self._thread.start()
            elif first:
                self._changed.notify()

    def _push(self, beating: _Beating) -> bool:
        entry = (time.monotonic() + beating.interval_s, next(self._number), beating)
        heapq.heappush(self._due, entry)
        return self._due[0] is entry

    def _run(self) -> None:
        loop = asyncio.new_event_loop()
        while True:
            beating = self._next()
            try:
                more = beating.beat(loop)
            except Exception:
                # An error of one session's heartbeat must not end those of the others.
                logger.warning("a heartbeat could not be sent", exc_info=True)
                continue
            if more:
                with self._changed:
                    self._push(beating)

    def _next(self) -> _Beating:
        with self._changed:
            while True:
                # Most end before their heartbeat is due; the thread does not wake up for these.
                while self._due and self._due[0][2].has_ended:
                    heapq.heappop(self._due)
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)


_beats = _Beats()
