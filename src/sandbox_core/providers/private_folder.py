"""A private folder on this host, in which the user's workers share files."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(*parts: str) -> Path:
    """Return a folder below ``{temporary directory}/sandbox-core-{user id}``, created if needed.

    Other users could create something with that name first. So each folder of the path must belong
    to this user, must not be a link, and must not be writable for others; it is then made
    unreadable for others, too.

    Args:
        parts: The names of the subfolders.

    Raises:
        PermissionError: A folder is a link, belongs to another user, or is writable for others.
        OSError: A folder cannot be created.
    """
    folder = Path(tempfile.gettempdir())
    for name in (f"sandbox-core-{os.geteuid()}", *parts):
        folder /= name
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        make_private(folder)
    return folder


def make_private(folder: Path) -> None:
    """Make a folder of this user's inaccessible to others.

    Raises:
        PermissionError: It is not a folder, or belongs to another user or is writable for others.
        OSError: It does not exist.
    """
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        problem = "is a link"
    elif not stat.S_ISDIR(found.st_mode):
        problem = "is not a folder"
    elif found.st_uid != os.geteuid():
        problem = f"belongs to user {found.st_uid}, not to {os.geteuid()}"
    elif found.st_mode & _OTHERS_WRITE:
        problem = "can be written by other users"
    else:
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
        return
    raise PermissionError(
        f"{folder} {problem}: files that workers of this host share there could be "
        f"anybody's. Remove it, or give the worker its own TMPDIR."
    )
