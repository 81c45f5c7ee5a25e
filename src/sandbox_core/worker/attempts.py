"""Which attempt of its activity a handler is, and work that no cancellation interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from temporalio import activity

_ResultT = TypeVar("_ResultT")


def attempt() -> int:
    """Return which attempt of its activity the caller is, from 1 on."""
    return activity.info().attempt if activity.in_activity() else 1


def overdue() -> bool:
    """Return whether the activity has had its start-to-close timeout: another attempt may run."""
    if not activity.in_activity():
        return False
    info = activity.info()
    allowed = info.start_to_close_timeout
    # Temporal tells a little late, and never early.
    return allowed is not None and (
        datetime.now(timezone.utc) - info.started_time >= allowed - timedelta(seconds=0.5)
    )


async def uncancellable(work: Awaitable[_ResultT]) -> _ResultT:
    """Await `work`, which is bounded by itself, to its end; cancellations meanwhile are lost."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()
