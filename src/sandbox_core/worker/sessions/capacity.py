"""Limits the number of a provider's sandboxes on one worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sandbox_core.errors import AtCapacity


@dataclass(kw_only=True)
class Capacity:
    """How many sandboxes of one provider a worker may have at a time; None for no limit."""

    limit: int | None = None
    _being_made: set[str] = field(default_factory=set)
    _counting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def reserved(
        self, provider: str, key: str, existing: Callable[[], Awaitable[set[str]]]
    ) -> AsyncIterator[None]:
        """Reserve room for one sandbox while it is created.

        Args:
            provider: The provider's name, for the error.
            key: The request's idempotency key.
            existing: Returns the idempotency keys of the existing sandboxes.

        Raises:
            AtCapacity: The limit is reached. The workflow asks again later: a create that waited
                here would take the activity slot of the delete that it waits for.
        """
        if self.limit is None:
            yield
            return
        async with self._counting:
            # One that is finished during the count may have been made too late to be in it.
            begun = set(self._being_made)
            others = (begun | await existing() | self._being_made) - {key}
            if len(others) >= self.limit:
                raise AtCapacity(
                    f"{len(others)} of {self.limit} sandboxes of provider {provider!r} are in use "
                    f"on this worker"
                )
            self._being_made.add(key)
        try:
            yield
        finally:
            self._being_made.discard(key)
