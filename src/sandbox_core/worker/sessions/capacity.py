"""How many sandboxes of a provider a worker makes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sandbox_core.errors import AtCapacity


@dataclass(kw_only=True)
class Capacity:
    """A limit on the sandboxes of one provider that one worker has at a time; None is no limit."""

    limit: int | None = None
    _being_made: set[str] = field(default_factory=set)
    _counting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def reserved(
        self, provider: str, key: str, existing: Callable[[], Awaitable[set[str]]]
    ) -> AsyncIterator[None]:
        """Reserve one sandbox, for as long as it takes to make it.

        Args:
            provider: The provider's name, for the error.
            key: Names the create that asks.
            existing: Returns the keys that the sandboxes were made with which there are.

        Raises:
            AtCapacity: There are as many as may be; the workflow asks again later, so that a
                create which waits keeps no activity slot from the delete it waits for.
        """
        if self.limit is None:
            yield
            return
        async with self._counting:
            others = (await existing() | self._being_made) - {key}
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
