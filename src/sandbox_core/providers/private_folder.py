"""A folder of the user's own on this host, where its workers find what others have left there."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(*parts: str) -> Path:
    """Return a folder below ``{temporary directory}/sandbox-core-{user id}``, made if need be.

    Anybody can make something of that name first. So each folder on the way has to be a folder, no
    link, of this user, and one in which nobody else may write; nobody else may read in it either
    from then on.

    Args:
        parts: The names of the folders below it.

    Raises:
        PermissionError: One is somebody else's, or a link, or others may write in it.
        OSError: One cannot be made.
    """
    folder = Path(tempfile.gettempdir())
    for name in (f"sandbox-core-{os.geteuid()}", *parts):
        folder /= name
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        make_private(folder)
    return folder


def make_private(folder: Path) -> None:
    """Close a folder of this user's to others.

    Raises:
        PermissionError: It is no folder, a link, or somebody else's, or others may write in it.
        OSError: It does not exist.
    """
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        problem = "is a link"
    elif not stat.S_ISDIR(found.st_mode):
        problem = "is no folder"
    elif found.st_uid != os.geteuid():
        problem = f"belongs to user {found.st_uid}, not to {os.geteuid()}"
    elif found.st_mode & _OTHERS_WRITE:
        problem = "can be written by other users"
    else:
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
        return
    raise PermissionError(
        f"{folder} {problem}: what workers of this host leave there for each other could be "
        f"anybody's. Remove it, or give the worker a TMPDIR of its own."
    )
