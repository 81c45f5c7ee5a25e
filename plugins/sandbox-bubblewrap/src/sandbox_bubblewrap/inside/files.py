"""File operations on the workspace, performed inside the sandbox by a child of its process 1.

No path or link leads out of the sandbox, because the kernel shows nothing else here. The SDK's rule
that file operations also stay in the workspace is enforced by `resolve`.

An operation reads descriptor 0 and writes descriptor 1. One that opens a file sends the descriptor,
so that the worker reads as much as it wants. A failed one exits with code 1 and writes a JSON
object to descriptor 2: ``error`` is ``os`` (with ``errno``), ``escape`` or ``read_only`` (with
``resolved`` and ``grant``), ``member`` or ``unsaved`` (with ``path`` and ``reason``).
"""

# No pathlib: see `init`.
# ruff: noqa: PTH101, PTH102, PTH103, PTH108, PTH112, PTH114, PTH118, PTH120

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Sequence
from typing import Any

_COPY = 256 * 1024


class Refused(Exception):
    """An operation was refused, with the details of the answer."""

    def __init__(self, error: str, **details: object) -> None:
        super().__init__(error)
        self.details: dict[str, object] = {"error": error, **details}


def run(name: str, arguments: dict[str, Any], give: Callable[[int], None]) -> int:
    """Perform the operation `name`, and return the exit code; `give` sends a descriptor."""
    try:
        try:
            opened = _OPERATIONS[name](**arguments)
            if opened is not None:
                give(opened)
        except OSError as error:
            raise Refused("os", errno=error.errno, text=error.strerror) from error
    except Refused as refused:
        os.write(2, json.dumps(refused.details).encode())
        return 1
    return 0


def resolve(path: str, roots: list[list[Any]], *, for_write: bool = False) -> str:
    """Return a path with all links resolved.

    Args:
        path: An absolute path.
        roots: The allowed parent paths, each with whether it is read-only.
        for_write: Whether the file is about to be changed.

    Raises:
        Refused: The path leads elsewhere, or must not be changed.
    """
    resolved = os.path.realpath(path)
    inside = [
        (real, read_only)
        for real, read_only in ((os.path.realpath(root), ro) for root, ro in roots)
        if resolved == real or resolved.startswith(real.rstrip("/") + "/")
    ]
    if not inside:
        raise Refused("escape", resolved=resolved)
    grant, read_only = max(inside, key=lambda root: len(root[0]))
    if for_write and read_only:
        raise Refused("read_only", resolved=resolved, grant=grant)
    return resolved


def _check(path: str, roots: list[list[Any]], for_write: bool) -> None:
    resolve(path, roots, for_write=for_write)


def _open(path: str, roots: list[list[Any]]) -> int:
    fd = os.open(resolve(path, roots), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    _must_be_regular(fd)
    return fd


def _write(path: str, roots: list[list[Any]]) -> None:
    path = resolve(path, roots, for_write=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o666)
    _must_be_regular(fd)
    os.ftruncate(fd, 0)
    _copy(0, fd)


def _must_be_regular(fd: int) -> None:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")


def _copy(source: int, target: int) -> None:
    with open(source, "rb", closefd=False) as reading, open(target, "wb", closefd=False) as writing:
        shutil.copyfileobj(reading, writing, _COPY)


def _ls(path: str, roots: list[list[Any]]) -> None:
    resolved = resolve(path, roots)
    if os.path.isdir(resolved):
        with os.scandir(resolved) as found:
            entries = [
                _entry(os.path.join(path, entry.name), entry.stat(follow_symlinks=False))
                for entry in sorted(found, key=lambda entry: entry.name)
            ]
    else:
        entries = [_entry(path, os.lstat(resolved))]
    with open(1, "w", encoding="ascii", closefd=False) as out:
        json.dump(entries, out)


def _entry(path: str, found: os.stat_result) -> dict[str, object]:
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return {
        "path": path,
        "mode": found.st_mode,
        "owner": owner,
        "group": group,
        "size": found.st_size,
    }


def _mkdir(path: str, roots: list[list[Any]], parents: bool) -> None:
    path = resolve(path, roots, for_write=True)
    if parents:
        os.makedirs(path, exist_ok=True)
        return
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def _rm(path: str, roots: list[list[Any]], recursive: bool) -> None:
    resolve(path, roots, for_write=True)
    # A link is removed, not its target.
    head, leaf = os.path.split(path.rstrip("/"))
    path = os.path.join(os.path.realpath(head), leaf)
    try:
        is_directory = stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        if recursive:
            return
        raise
    if not is_directory:
        os.unlink(path)
    elif recursive:
        remove_tree(path)
    else:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))


def remove_tree(path: str) -> None:
    """Remove a directory and its content, even if the owner may not write to it."""

    def retry(function: Callable[..., object], failed: str, caught: Sequence[object]) -> None:
        error = caught[1]
        assert isinstance(error, BaseException)
        if isinstance(error, FileNotFoundError):
            return
        if not isinstance(error, PermissionError):
            raise error
        for closed in (os.path.dirname(failed), failed):
            if os.path.isdir(closed) and not os.path.islink(closed):
                os.chmod(closed, 0o700)
        if function in (os.unlink, os.rmdir):
            function(failed)
        else:
            remove_tree(failed)

    shutil.rmtree(path, onerror=retry)


def _persist(root: str, skip: list[str]) -> None:
    from sandbox_bubblewrap.inside import archive  # Only when needed: `tarfile` is large.

    archive.save(root, skip)


def _hydrate(root: str) -> None:
    from sandbox_bubblewrap.inside import archive

    archive.restore(root)


_OPERATIONS: dict[str, Callable[..., int | None]] = {
    "check": _check,
    "hydrate": _hydrate,
    "ls": _ls,
    "mkdir": _mkdir,
    "open": _open,
    "persist": _persist,
    "rm": _rm,
    "write": _write,
}
