"""`sandbox-core shell` at a real terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from cli.command import start_sandbox
from temporalio.client import Client, WorkflowHandle

from sandbox_core.cli.history import operations_of
from sandbox_core.testing.fork_server import ForkedProcess


class Screen:
    """The other side of the terminal that a command runs in."""

    def __init__(self, master: int, process: ForkedProcess) -> None:
        self.process = process
        self._master = master
        self._shown = b""
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            self._shown += os.read(self._master, 65536)
        except OSError:  # Nobody has it open any more.
            asyncio.get_running_loop().remove_reader(self._master)
        self._changed.set()

    async def ended(self) -> int:
        """Return the exit code of the command."""
        return await asyncio.to_thread(self.process.wait)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self._master)[3] & termios.ICANON

    async def shows(self, text: str) -> bytes:
        """Return what is on the screen up to a text, once that is there; the rest remains."""
        while text.encode() not in self._shown:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), 60)
            except asyncio.TimeoutError:
                raise AssertionError(f"not shown: {text!r}, but {self._shown!r}") from None
        before, _, self._shown = self._shown.partition(text.encode())
        return before

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


@asynccontextmanager
async def shell(
    variables: Mapping[str, str], sandbox_id: str, *arguments: str
) -> AsyncIterator[Screen]:
    """Start the command, with a terminal of 30 by 100 of its own."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    with os.fdopen(slave, "wb", buffering=0) as terminal:
        process = await asyncio.to_thread(
            start_sandbox,
            *("shell", sandbox_id, *arguments),
            variables={**variables, "TERM": "xterm-256color"},
            stdin=terminal,
            out=terminal,
            err=terminal,
        )
        screen = Screen(master, process)
        try:
            yield screen
            assert not screen.is_raw, "the terminal was not restored"
        finally:
            screen.close()
            process.kill()


async def sandbox_of(client: Client, handle: WorkflowHandle[Any, Any]) -> str:
    """Return the id of the sandbox that a workflow has created."""
    async for each in operations_of(client, handle):
        if each.sandbox_id is not None:
            return each.sandbox_id
    raise AssertionError(f"{handle.id} has no sandbox")
