"""What all sessions and clients of one workflow share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

_T = TypeVar("_T")


class PerWorkflow(Generic[_T]):
    """A value of each workflow, which exists as long as the worker has the workflow in memory.

    Args:
        make: Makes the value when a workflow asks for it first. The value must not refer to the
            workflow's event loop, which would then be kept forever.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        # Temporal runs each workflow in an event loop of its own.
        self._values: WeakKeyDictionary[asyncio.AbstractEventLoop, _T] = WeakKeyDictionary()

    def get(self) -> _T:
        """Return the value of the calling workflow."""
        loop = asyncio.get_running_loop()
        if loop not in self._values:
            self._values[loop] = self._make()
        return self._values[loop]
