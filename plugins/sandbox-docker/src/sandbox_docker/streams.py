"""Connects to the stdin and stdout of a process in a container."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, cast

from agents.sandbox.sandboxes.docker import DockerSandboxSession
from docker.models.containers import Container

from sandbox_docker.engine import in_thread

logger = logging.getLogger(__name__)

FRAME: Final = struct.Struct(">BxxxL")
"""The header of each piece of output: its stream and length."""

_STDOUT: Final = 1
_UNREAD_BYTES: Final = 1024 * 1024
"""How much output may wait to be received before the engine has to wait."""


class ExecStream(asyncio.Protocol):
    """stdin and stdout of a process in a container; the engine's connection is this one's own."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._came = bytearray()
        self._stdout = bytearray()
        self._ended = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    async def send(self, data: bytes) -> None:
        """Write all of `data` to stdin.

        Raises:
            ConnectionResetError: The connection is lost.
        """
        if self._ended or self._transport is None:
            raise ConnectionResetError("the connection to the engine is lost")
        self._transport.write(data)
        await self._writable.wait()

    async def receive(self) -> bytes:
        """Return the next bytes of stdout; none at the end."""
        while not self._stdout and not self._ended:
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._stdout)
        self._stdout.clear()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        return data

    async def send_eof(self) -> None:
        """Close stdin."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()
        self.connection_lost(None)

    # --- asyncio's side -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        start = 0
        while len(self._came) - start >= FRAME.size:
            number, size = FRAME.unpack_from(self._came, start)
            end = start + FRAME.size + size
            if end > len(self._came):
                break
            piece = memoryview(self._came)[start + FRAME.size : end]
            if number == _STDOUT:
                self._stdout += piece
            else:
                logger.debug("a process in a container says %r", bytes(piece[:1000]))
            piece.release()
            start = end
        del self._came[:start]
        if self._stdout:
            self._readable.set()
        if len(self._stdout) > _UNREAD_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = True
        self._readable.set()
        self._writable.set()


async def open_stream(
    container: Container, command: Sequence[str], *, workdir: str | None, user: str | None
) -> ExecStream:
    """Start a process in a container, and connect to it.

    Raises:
        NotImplementedError: The engine is reached in a way that has no socket to wait for.
        DockerException: The engine refuses.
        OSError: The engine does not answer.
    """
    if not container.client.api.base_url.startswith(("http+docker://localhost", "http://")):
        raise NotImplementedError("streams need an engine at a Unix socket or a plain TCP port")
    starting = asyncio.ensure_future(in_thread(_start, container, command, workdir, user))
    try:
        connection, came = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_close)
        raise
    stream = ExecStream()
    try:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: stream, sock=connection)
    except BaseException:
        connection.close()
        raise
    stream.data_received(came)
    return stream


def _close(starting: asyncio.Future[tuple[socket.socket, bytes]]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result()[0].close()


def _start(
    container: Container, command: Sequence[str], workdir: str | None, user: str | None
) -> tuple[socket.socket, bytes]:
    """Return a connection, detached from docker-py, and the bytes already received from it."""
    api = container.client.api
    exec_id = api.exec_create(
        container.id, list(command), stdin=True, workdir=workdir, user=user or ""
    )["Id"]
    opened = DockerSandboxSession._start_exec_socket(api=api, exec_id=exec_id)
    response: Any = opened.response
    try:
        theirs = cast("socket.socket", opened.raw_sock)
        theirs.setblocking(False)
        # docker-py loses what came with the response's headers.
        came = response.raw._fp.fp.peek()
        return theirs.dup(), came
    finally:
        opened.close()
        with suppress(OSError):
            response.raw.close()  # The SDK leaves the connection open.
