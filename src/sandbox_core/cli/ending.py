"""Lets work that creates things end when its command is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

_T = TypeVar("_T")
_ENDED_WITHIN_S = 3.0
_CLEANED_UP_WITHIN_S = 10.0


async def let_end(work: Coroutine[object, object, _T]) -> _T:
    """Return the result of `work`; if cancelled, first let it end, for up to three seconds.

    After that, `work` is cancelled too, and has up to ten seconds to delete what it has created.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        _, running = await asyncio.wait([task], timeout=_ENDED_WITHIN_S)
        if running:
            task.cancel()
            await asyncio.wait([task], timeout=_CLEANED_UP_WITHIN_S)
        raise


async def gather(*work: Coroutine[object, object, _T]) -> list[_T]:
    """Return the results; if this is cancelled or one fails, raise when all have ended.

    `asyncio.gather` raises as soon as the first is cancelled. `asyncio.run` would then cancel the
    others again, in the middle of their cleanup.
    """
    results = await asyncio.gather(*work, return_exceptions=True)
    returned: list[_T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        returned.append(result)
    return returned
