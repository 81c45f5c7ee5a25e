"""Registers functions as the handlers of operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TypeAlias, cast

from sandbox_core.wire.messages import Message
from sandbox_core.wire.operations import Operation, RequestT, ResponseT
from sandbox_core.worker.call import Call

Answer: TypeAlias = "Message | bytes | None"


@dataclass(frozen=True, kw_only=True)
class Handler:
    """Carries out one operation when called."""

    operation: Operation[Message, Answer]
    function: Callable[[Call, Message, bytes], Awaitable[Answer]]

    async def __call__(self, call: Call, request: Message, body: bytes = b"") -> Answer:
        """Carry out `request`; `body` is its raw data."""
        return await self.function(call, request, body)


def handles(
    operation: Operation[RequestT, ResponseT],
) -> Callable[[Callable[[Call, RequestT], Awaitable[ResponseT]]], Handler]:
    """Make the decorated function of a request the handler of `operation`."""

    def make(function: Callable[[Call, RequestT], Awaitable[ResponseT]]) -> Handler:
        async def without_body(call: Call, request: RequestT, body: bytes) -> ResponseT:
            return await function(call, request)

        return handles_bytes(operation)(without_body)

    return make


def handles_bytes(
    operation: Operation[RequestT, ResponseT],
) -> Callable[[Callable[[Call, RequestT, bytes], Awaitable[ResponseT]]], Handler]:
    """Make the decorated function of a request and its raw data the handler of `operation`."""

    def make(function: Callable[[Call, RequestT, bytes], Awaitable[ResponseT]]) -> Handler:
        return Handler(
            operation=cast("Operation[Message, Answer]", operation),
            function=cast("Callable[[Call, Message, bytes], Awaitable[Answer]]", function),
        )

    return make


def handlers_of(*modules: ModuleType) -> dict[str, Handler]:
    """Return the handlers defined in `modules`, by operation name."""
    found = [value for m in modules for value in vars(m).values() if isinstance(value, Handler)]
    return {handler.operation.name: handler for handler in found}
