"""Refuses files that could block the worker's event loop, in which they are read and written.

Opening a FIFO waits for its other end, and the effect of opening a device depends on the device.
From version 0.24, the SDK itself refuses both.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
from pathlib import Path

from agents.sandbox.sandboxes._unix_local_files import _UnixLocalFiles

_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class RegularFiles(_UnixLocalFiles):
    """The SDK's file operations, for regular files only."""

    def read(self, path: Path) -> io.IOBase:
        """Open a file for reading.

        Raises:
            OSError: The file is missing, not regular, or not readable.
        """
        with self.parent(path) as (parent_fd, name):
            fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=parent_fd)
        return os.fdopen(_regular(fd, path), "rb")

    def write(self, path: Path, stream: io.IOBase) -> None:
        """Write a file, and create its parent folders.

        Raises:
            OSError: The file is not regular, or not writable.
        """
        flags = os.O_WRONLY | os.O_CREAT | _FLAGS
        with self.parent(path, for_write=True, create_parents=True) as (parent_fd, name):
            fd = os.open(name, flags, 0o666, dir_fd=parent_fd)
        with os.fdopen(_regular(fd, path), "wb") as out:
            out.truncate()
            shutil.copyfileobj(stream, out)


def _regular(fd: int, path: Path) -> int:
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    reason = os.strerror(code) if code == errno.EISDIR else "Not a regular file"
    raise OSError(code, reason, str(path))
