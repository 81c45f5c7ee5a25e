"""Pipes between the worker and a process of a sandbox."""

from __future__ import annotations

import asyncio
import io
import os
from typing import Final

READ: Final = 256 * 1024
"""How many bytes to read at a time."""


class Pipes:
    """Pipes to a process. At the end of the context, all ends that were not kept are closed."""

    def __init__(self) -> None:
        self._ours: set[int] = set()
        self._theirs: set[int] = set()

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_theirs()
        for fd in self._ours:
            os.close(fd)

    def open(self, *, ours_writes: bool = False) -> tuple[int, int]:
        """Return our end and the process's end of a new pipe."""
        ours, theirs = os.pipe()
        if ours_writes:
            ours, theirs = theirs, ours
        self._ours.add(ours)
        self._theirs.add(theirs)
        return ours, theirs

    def null(self) -> int:
        """Return a descriptor of /dev/null for the process."""
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._theirs.add(fd)
        return fd

    def keep(self, ours: int) -> int:
        """Keep our end open at the end of the context; the caller closes it."""
        self._ours.remove(ours)
        return ours

    def close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())


async def reader_of(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Return a reader of a pipe, which is closed with the transport."""
    reader = asyncio.StreamReader(limit=READ)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), io.FileIO(fd, "rb")
    )
    return reader, transport
