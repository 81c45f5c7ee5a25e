"""Reads the SDK's streams."""

from __future__ import annotations

import asyncio
import io


async def content_of(stream: io.IOBase, max_bytes: int | None = None) -> bytes:
    """Return the rest of a stream, `max_bytes` at most, and close it. Text is encoded as UTF-8."""
    # In a thread: a file may be large, and its disk slow.
    return await asyncio.to_thread(_rest, stream, max_bytes)


def _rest(stream: io.IOBase, max_bytes: int | None) -> bytes:
    with stream:
        if max_bytes is None:
            return _encoded(stream.read())
        content = bytearray()
        # A stream may return less than it is asked for, but returns nothing only at its end.
        while len(content) < max_bytes and (piece := stream.read(max_bytes - len(content))):
            content += _encoded(piece)
        return bytes(content[:max_bytes])


def _encoded(piece: str | bytes) -> bytes:
    return piece.encode("utf-8") if isinstance(piece, str) else bytes(piece)
