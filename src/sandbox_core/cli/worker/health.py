"""Answers probes over HTTP: whether the process is alive, and whether the worker takes work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

_ASKED_WITHIN_S = 5.0
_MAX_HEAD_BYTES = 8192


@asynccontextmanager
async def health_server(port: int, not_ready: Callable[[], str]) -> AsyncIterator[None]:
    """Serve ``/livez`` and ``/readyz`` on all of the host's addresses.

    ``/livez`` answers 200 while the event loop runs; ``/readyz`` 200, or 503 with a reason.

    Args:
        port: The TCP port.
        not_ready: Returns why the worker takes no work; empty if it does.

    Raises:
        RuntimeError: The port cannot be used.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.TimeoutError, asyncio.LimitOverrunError, EOFError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _ASKED_WITHIN_S)
            writer.write(_response(head, not_ready))
            await asyncio.wait_for(writer.drain(), _ASKED_WITHIN_S)
        writer.close()

    try:
        server = await asyncio.start_server(answer, None, port, limit=_MAX_HEAD_BYTES)
    except OSError as error:
        reason = error.strerror or error
        raise RuntimeError(f"--health-port {port}: {reason}. Choose another port.") from error
    try:
        yield
    finally:
        server.close()


def _response(head: bytes, not_ready: Callable[[], str]) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        status, body = "405 Method Not Allowed", "use GET"
    elif path == b"/livez":
        status, body = "200 OK", "alive"
    elif path == b"/readyz":
        reason = not_ready()
        status, body = ("503 Service Unavailable", reason) if reason else ("200 OK", "ready")
    else:
        status, body = "404 Not Found", "there are /livez and /readyz"
    content = f"{body}\n"
    head_lines = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return f"{head_lines}{'' if method == b'HEAD' else content}".encode()
