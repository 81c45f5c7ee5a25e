"""This process's terminal, in raw mode: each key is passed on as it is."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_INPUT_BYTES = 16 * 1024


class Terminal:
    """A terminal in raw mode."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.keys: asyncio.Queue[bytes] = asyncio.Queue()
        """What is typed; an empty entry is its end."""

    @property
    def size(self) -> tuple[int, int]:
        """Its rows and columns."""
        packed = fcntl.ioctl(self._descriptor, termios.TIOCGWINSZ, b"\0" * 8)
        rows, columns, _, _ = struct.unpack("HHHH", packed)
        return rows or 24, columns or 80

    def write(self, output: bytes) -> None:
        """Show what a process has written."""
        sys.stdout.buffer.write(output)
        sys.stdout.flush()

    def read(self) -> None:
        """Take what was typed."""
        try:
            typed = os.read(self._descriptor, _INPUT_BYTES)
        except OSError:  # It is gone.
            typed = b""
        self.keys.put_nowait(typed)
        if not typed:
            asyncio.get_running_loop().remove_reader(self._descriptor)


@contextmanager
def raw_terminal(*, resized: Callable[[], None], closed: Callable[[], None]) -> Iterator[Terminal]:
    """Yield standard input as a terminal in raw mode, and restore it.

    Args:
        resized: Called when its size has changed.
        closed: Called when it is closed.
    """
    handlers = {signal.SIGWINCH: resized, signal.SIGHUP: closed}
    descriptor = sys.stdin.fileno()
    loop, before = asyncio.get_running_loop(), termios.tcgetattr(descriptor)
    terminal = Terminal(descriptor)
    tty.setraw(descriptor, termios.TCSADRAIN)  # What was typed ahead is kept.
    try:
        loop.add_reader(descriptor, terminal.read)
        for signum, handler in handlers.items():
            loop.add_signal_handler(signum, handler)
        yield terminal
    finally:
        for signum in handlers:
            loop.remove_signal_handler(signum)
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
