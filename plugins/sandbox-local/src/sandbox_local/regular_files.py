"""Files of the worker's host that are read and written in its event loop, and so must not block.

To open a FIFO waits for whoever has its other end, and to open a device does whatever that does.
From 0.24 on the SDK refuses both by itself.
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
    """The SDK's file operations, of regular files only."""

    def read(self, path: Path) -> io.IOBase:
        """Open a file for reading.

        Raises:
            OSError: It is missing, no regular file, or may not be read.
        """
        with self.parent(path) as (parent_fd, name):
            fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=parent_fd)
        return os.fdopen(_regular(fd, path), "rb")

    def write(self, path: Path, stream: io.IOBase) -> None:
        """Write a file, and make the folders that it is in.

        Raises:
            OSError: It is no regular file, or may not be written.
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
