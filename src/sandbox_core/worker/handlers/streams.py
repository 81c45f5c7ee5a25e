"""What is read from a stream of the SDK."""

from __future__ import annotations

import asyncio
import io


async def content_of(stream: io.IOBase, max_bytes: int | None = None) -> bytes:
    """Return what is left of a stream, or the first bytes of that, and close it; text as UTF-8."""
    # A file may be large, and on a slow disk.
    return await asyncio.to_thread(_rest, stream, max_bytes)


def _rest(stream: io.IOBase, max_bytes: int | None) -> bytes:
    with stream:
        if max_bytes is None:
            return _encoded(stream.read())
        content = bytearray()
        # A stream may answer with less than it is asked for, and with nothing only at its end.
        while len(content) < max_bytes and (piece := stream.read(max_bytes - len(content))):
            content += _encoded(piece)
        return bytes(content[:max_bytes])


def _encoded(piece: str | bytes) -> bytes:
    return piece.encode("utf-8") if isinstance(piece, str) else bytes(piece)
