"""What a handler is: it carries out one row of the table, with what an activity gives it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

from sandbox_core.messages import Message
from sandbox_core.operations import Operation, RequestT, ResponseT
from sandbox_core.providers.registry import Provider
from sandbox_core.worker.capacity import Capacity
from sandbox_core.worker.labels import Namespace
from sandbox_core.worker.sessions import Client, SessionPool


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a handler works with: the provider, its client, and the sessions held here."""

    provider: Provider
    client: Client
    pool: SessionPool = field(default_factory=SessionPool)
    namespace: Namespace | None = None
    """Where the workflows are; None if the server does not say, and sandboxes go without labels."""

    worker_queue: str | None = None
    local_sources: tuple[Path, ...] = ()
    fleet: bool = False
    """Whether a storage is configured, which workers on other hosts share."""

    capacity: Capacity = field(default_factory=Capacity)
    body: bytes = b""

    @property
    def durable(self) -> bool:
        """Whether commands may run under the shim."""
        return self.provider.durable_processes


Handler: TypeAlias = Callable[[Call, Message], Awaitable["Message | bytes | None"]]
HANDLERS: dict[str, Handler] = {}


def handles(
    operation: Operation[RequestT, ResponseT],
) -> Callable[
    [Callable[[Call, RequestT], Awaitable[ResponseT]]],
    Callable[[Call, RequestT], Awaitable[ResponseT]],
]:
    """Mark a function as the handler of `operation`."""

    def register(
        handler: Callable[[Call, RequestT], Awaitable[ResponseT]],
    ) -> Callable[[Call, RequestT], Awaitable[ResponseT]]:
        HANDLERS[operation.name] = cast("Handler", handler)
        return handler

    return register
