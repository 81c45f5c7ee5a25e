"""The current attempt of an activity: its number, its elapsed time, and work that outlives it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from typing import TypeVar

from temporalio import activity

_ResultT = TypeVar("_ResultT")

_EARLY_S = 0.5
"""How many seconds before the server an attempt considers itself over."""

_SHUTDOWN_S = 10.0
"""How long work that outlives its attempt may continue when the worker shuts down, in seconds.

The worker waits for it. Temporal cancels a plugin 60 seconds after its worker has stopped, and
Kubernetes kills a worker 30 seconds after telling it to stop.
"""

# Monotonic time; the server's clock is a different one.
_begun: ContextVar[float] = ContextVar("begun")


@contextmanager
def timed() -> Iterator[None]:
    """Record the beginning of the current activity's attempt."""
    token = _begun.set(time.monotonic())
    try:
        yield
    finally:
        _begun.reset(token)


def attempt() -> int:
    """Return the number of the current attempt, counted from 1."""
    return activity.info().attempt if activity.in_activity() else 1


def overdue() -> bool:
    """Return whether the start-to-close timeout has passed, so that another attempt may run."""
    begun = _begun.get(None)
    if begun is None or not activity.in_activity():
        return False
    allowed = activity.info().start_to_close_timeout
    # Temporal reports the timeout slightly late, and never early.
    return allowed is not None and (
        time.monotonic() - begun >= (allowed - timedelta(seconds=_EARLY_S)).total_seconds()
    )


async def uncancellable(work: Awaitable[_ResultT]) -> _ResultT:
    """Await `work` to its end, ignoring cancellations. `work` must have its own time limit."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()


async def finished(work: Coroutine[object, object, object], *, within_s: float) -> bool:
    """Return whether `work` ended in time; otherwise cancel it.

    It has `within_s` seconds, or less if the worker shuts down, which waits for it.
    """
    task = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(_worker_shuts_down())
    try:
        await asyncio.wait({task, stopping}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            await asyncio.wait({task}, timeout=min(within_s, _SHUTDOWN_S))
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()
        stopping.cancel()


async def _worker_shuts_down() -> None:
    if activity.in_activity():
        await activity.wait_for_worker_shutdown()
    else:
        await asyncio.Event().wait()
