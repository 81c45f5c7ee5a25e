"""Tracks how long a store has been unreachable, so that its users fail after a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

from sandbox_core.errors import StorageError

_T = TypeVar("_T")

# Once patience has run out, callers get an answer within a workflow task's ten seconds.
_PROBE_S = 4.0


class Outage:
    """Remembers, in this process, since when a store has not answered.

    Temporal retries a workflow task that cannot load or store a payload for as long as the workflow
    is open. That is right for a short outage, which must not fail a long workflow, and wrong for a
    store that never comes back.
    """

    def __init__(self, patience: timedelta) -> None:
        self._patience = patience.total_seconds()
        self._since: float | None = None
        self._last: StorageError | None = None

    def problem(self) -> str | None:
        """Return why the store cannot be used if patience has run out, otherwise None."""
        if self._last is None or not self._exhausted():
            return None
        return self._last.message

    async def watch(self, work: Awaitable[_T]) -> _T:
        """Return the result of `work`, and remember whether the store answered.

        Raises:
            StorageError: The store failed. Final if patience has run out or the object is missing.
        """
        try:
            result = await asyncio.wait_for(work, _PROBE_S if self._exhausted() else None)
        except asyncio.TimeoutError:
            assert self._last is not None, "only a probe has a time limit"
            raise StorageError(self._last.message) from None
        except StorageError as error:
            if error.non_retryable:
                self._since = self._last = None
                raise
            self._last = error
            if self._since is None:
                self._since = time.monotonic()
            if self._exhausted():
                raise StorageError(error.message) from error
            raise
        self._since = self._last = None
        return result

    def _exhausted(self) -> bool:
        return self._since is not None and time.monotonic() - self._since >= self._patience
