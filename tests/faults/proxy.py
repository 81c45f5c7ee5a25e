"""A TCP proxy between a worker and the Temporal server, which drops chosen messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto


class Loss(Enum):
    """What is lost when a worker sends the request that is looked for."""

    REQUEST = auto()
    """The request, with the connection: the server never hears of it."""

    ANSWER = auto()
    """The server gets it; nothing that it says comes back, until the proxy is told to `reset`."""

    EVERYTHING = auto()
    """The worker is cut off from then on, for good."""


class Proxy:
    """The proxy, which loses nothing unless it is told to."""

    def __init__(self, server: str) -> None:
        self._server, self.address = server, ""
        self._request: bytes | None = None
        self._loss = Loss.REQUEST
        self._cut_off = False
        self._silent: set[asyncio.StreamWriter] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.lost = asyncio.Event()
        """Set when something has been lost."""

    def lose(self, loss: Loss, request: bytes) -> None:
        """Look for a request that has these bytes in it, and lose something once."""
        self._loss, self._request = loss, request

    def reset(self) -> None:
        """End all connections, as a restarted router does."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one connection until it ends."""
        if self._cut_off:
            writer.transport.abort()
            return
        host, _, port = self._server.rpartition(":")
        answers, onward = await asyncio.open_connection(host, int(port))
        pair = {writer, onward}
        self._writers |= pair
        recent = b""

        def request(data: bytes) -> bool:
            # What is looked for may be cut in two by the packets.
            nonlocal recent
            recent += data
            wanted = self._request
            if wanted is None or wanted not in recent:
                recent = recent[-len(wanted or b"") :]
                return True
            self._request = None
            self.lost.set()
            if self._loss is Loss.ANSWER:
                self._silent.add(writer)
                return True
            self._cut_off = self._loss is Loss.EVERYTHING
            self.reset()
            return False

        try:
            await asyncio.gather(
                _pass_on(reader, onward, request),
                _pass_on(answers, writer, lambda data: writer not in self._silent),
            )
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may: Callable[[bytes], bool]
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            if may(data):
                writer.write(data)
                await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def proxy(server: str) -> AsyncIterator[Proxy]:
    """Yield a proxy in front of the server at this address."""
    started = Proxy(server)
    async with await asyncio.start_server(started.accept, "127.0.0.1") as listener:
        started.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield started
        finally:
            listener.close()
            started.reset()
