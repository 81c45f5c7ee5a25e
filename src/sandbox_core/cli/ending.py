"""Lets work that creates things end when its command is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

_T = TypeVar("_T")
_ENDED_WITHIN_S = 3.0


async def let_end(work: Coroutine[object, object, _T]) -> _T:
    """Return the result of `work`; if cancelled, first let it end, for up to three seconds."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_ENDED_WITHIN_S)
        task.cancel()
        raise
