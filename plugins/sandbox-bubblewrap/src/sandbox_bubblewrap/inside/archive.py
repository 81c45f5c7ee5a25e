"""Saves the workspace as a tar stream, and restores it.

The stream includes hard links, FIFOs and files with any names, but no sockets, which are useless
once their process is gone.
"""

# No pathlib: see `init`.
# ruff: noqa: PTH101, PTH102, PTH108, PTH118, PTH120, PTH123, PTH208, PTH211

from __future__ import annotations

import os
import stat
import tarfile
from contextlib import suppress

from sandbox_bubblewrap.inside.files import Refused, remove_tree


def save(root: str, skip: list[str]) -> None:
    """Write a tar stream of the content of `root` to descriptor 1.

    Args:
        root: The workspace.
        skip: Paths to exclude, relative to the workspace.

    Raises:
        Refused: It contains a device.
    """
    skipped = {os.path.normpath(path) for path in skip}

    with open(1, "wb", closefd=False) as out, tarfile.open(fileobj=out, mode="w|") as tar:

        def add(path: str, name: str) -> None:
            found = os.lstat(path)
            if stat.S_ISSOCK(found.st_mode):
                return
            if stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode):
                raise Refused("unsaved", path=name, reason="it is a device")
            member = tar.gettarinfo(path, arcname=name)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            if member.isreg():
                with open(path, "rb") as content:
                    tar.addfile(member, content)
                return
            tar.addfile(member)
            if member.isdir():
                for child in sorted(os.listdir(path)):
                    inner = os.path.normpath(os.path.join(name, child))
                    if inner not in skipped:
                        add(os.path.join(path, child), inner)

        add(root, ".")


def restore(root: str) -> None:
    """Extract the tar stream from descriptor 0 into `root`.

    Nothing is written through a symbolic link: the archive's are created last, and existing ones
    are not followed.

    Raises:
        Refused: A member would be outside `root`, is a device, or is a hard link to a file that the
            archive does not have.
    """
    root = os.path.realpath(root)
    links: list[tuple[str, str, str]] = []
    directories: list[tuple[str, int]] = []
    files: set[str] = set()
    with open(0, "rb", closefd=False) as data, tarfile.open(fileobj=data, mode="r|*") as tar:
        for member in tar:
            path = _target(root, member)
            if path is None:
                continue
            if member.issym():
                links.append((path, member.linkname, member.name))
            elif member.isdir():
                _directory(root, path, member)
                directories.append((path, stat.S_IMODE(member.mode) & 0o777))
            elif member.isreg():
                _make_room(root, path, member.name)
                content = tar.extractfile(member)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                with open(os.open(path, flags, 0o600), "wb") as out:
                    while content is not None and (piece := content.read(1 << 18)):
                        out.write(piece)
                    os.fchmod(out.fileno(), member.mode & 0o777)
                    os.utime(out.fileno(), (member.mtime, member.mtime))
                files.add(path)
            elif member.islnk():
                source = os.path.join(root, os.path.normpath(member.linkname))
                if source not in files - {path}:
                    reason = f"hard link to {member.linkname!r}, which is not a file of the archive"
                    raise Refused("member", path=member.name, reason=reason)
                _make_room(root, path, member.name)
                os.link(source, path)
                files.add(path)
            elif member.isfifo():
                _make_room(root, path, member.name)
                os.mkfifo(path, 0o600)
                os.chmod(path, member.mode & 0o777)
            else:
                raise Refused("member", path=member.name, reason="special file not allowed")
        while data.read(1 << 18):  # Drain the rest, so that the sender does not block.
            pass
    for path, target, name in links:
        _make_room(root, path, name)
        os.symlink(target, path)
    for path, mode in reversed(directories):
        with suppress(FileNotFoundError):
            os.chmod(path, mode)


def _target(root: str, member: tarfile.TarInfo) -> str | None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if not parts:
        if not member.isdir():
            raise Refused(
                "member", path=member.name, reason="archive root member must be directory"
            )
        return None
    if member.name.startswith("/"):
        raise Refused("member", path=member.name, reason="absolute path")
    if ".." in parts:
        raise Refused("member", path=member.name, reason="parent traversal")
    return os.path.join(root, *parts)


def _directory(root: str, path: str, member: tarfile.TarInfo) -> None:
    _parents(root, path, member.name)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            os.mkdir(path, 0o700)


def _make_room(root: str, path: str, name: str) -> None:
    _parents(root, path, name)
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            remove_tree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _parents(root: str, path: str, name: str) -> None:
    folder = root
    for part in os.path.relpath(os.path.dirname(path), root).split("/"):
        if part == ".":
            return
        folder = os.path.join(folder, part)
        try:
            found = os.lstat(folder)
        except FileNotFoundError:
            os.mkdir(folder, 0o755)
            continue
        if not stat.S_ISDIR(found.st_mode):
            raise Refused("member", path=name, reason="a parent is not a directory")
