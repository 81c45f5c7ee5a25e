"""Reads this process's standard input."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import suppress

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire.limits import DEFAULT_MAX_FILE_BYTES


async def read_standard_input() -> bytes:
    """Return all of the standard input; it can be interrupted.

    Raises:
        InvalidRequest: It is larger than a worker accepts.
    """
    loop = asyncio.get_running_loop()
    read: asyncio.Future[bytes] = loop.create_future()

    def set_result(data: bytes) -> None:
        if not read.done():
            read.set_result(data)

    def run() -> None:
        data = sys.stdin.buffer.read(DEFAULT_MAX_FILE_BYTES + 1)
        with suppress(RuntimeError):  # The loop was closed: the command was interrupted.
            loop.call_soon_threadsafe(set_result, data)

    # A thread of the loop's own would have to end before an interrupted command can.
    threading.Thread(target=run, name="standard-input", daemon=True).start()
    data = await read
    if len(data) > DEFAULT_MAX_FILE_BYTES:
        raise InvalidRequest(
            f"the standard input has more than the {DEFAULT_MAX_FILE_BYTES:,} bytes of a file that "
            f"workers accept."
        )
    return data
