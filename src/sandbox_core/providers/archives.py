"""Workspace tar archives: which are safe to unpack, and how paths are excluded.

A workspace may contain anything an agent made: virtual environments with hard links and absolute
symlinks, FIFOs, arbitrary file names. All of these are restored; only archives that would write
outside their target directory are refused.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath


class UnsafeArchive(ValueError):
    """An archive with an unsafe member; the message names it and the reason."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"{member!r} {reason}")
        self.member = member
        self.reason = reason


def check_archive(data: io.IOBase) -> None:
    """Return if a tar archive can be unpacked without writing outside its target directory.

    Rewinds the stream.

    Args:
        data: The archive, optionally compressed with gzip, bzip2 or xz; must be seekable.

    Raises:
        UnsafeArchive: It has an unsafe member, or is not a tar archive.
    """
    try:
        with tarfile.open(fileobj=data, mode="r:*") as tar:
            for member, reason in unsafe_members(tar):
                raise UnsafeArchive(member.name, reason)
    except tarfile.TarError as error:
        raise UnsafeArchive("the archive", f"cannot be read: {error}") from error
    finally:
        data.seek(0)


def unsafe_members(
    members: Iterable[tarfile.TarInfo], *, unpacked: Iterable[tarfile.TarInfo] = ()
) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Yield each member that would write outside the target directory, with the reason.

    Symlinks may lead anywhere, but no member may be below one or take its place, through which
    Python's `tarfile` would write, and a hard link must refer to an earlier member.

    Args:
        members: The members to unpack, in order.
        unpacked: The members already unpacked, in order.
    """
    links: set[tuple[str, ...]] = set()
    seen: set[tuple[str, ...]] = set()
    for member in unpacked:
        _unpack(member, links, seen)
    for member in members:
        reason = _refusal(member, links, seen)
        if reason is not None:
            yield member, reason
        _unpack(member, links, seen)


def _refusal(
    member: tarfile.TarInfo, links: set[tuple[str, ...]], seen: set[tuple[str, ...]]
) -> str | None:
    parts = _parts(member.name)
    if parts is None:
        return "leads out of the workspace"
    if any(parts[:depth] in links for depth in range(1, len(parts))):
        return "is below a link"
    if parts in links:
        return "takes the place of a link"
    if member.islnk():
        found = _parts(member.linkname) in seen
        return None if found else f"is a hard link to {member.linkname!r}, which is not saved"
    if member.issym() or member.isreg() or member.isdir() or member.isfifo():
        return None
    return "is a device"


def _unpack(
    member: tarfile.TarInfo, links: set[tuple[str, ...]], seen: set[tuple[str, ...]]
) -> None:
    parts = _parts(member.name)
    if parts is None:
        return
    # A hard link to a symlink is a symlink too.
    if member.issym() or (member.islnk() and _parts(member.linkname) in links):
        links.add(parts)
    seen.add(parts)


def _parts(name: str) -> tuple[str, ...] | None:
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts else path.parts


def excluding(paths: Iterable[Path]) -> list[str]:
    """Return ``tar`` arguments that exclude paths relative to the workspace."""
    arguments = []
    for path in sorted({path.as_posix() for path in paths} - {"."}):
        # GNU tar and busybox interpret patterns, so special characters are escaped.
        quoted = "".join(f"\\{c}" if c in "*?[\\" else c for c in path)
        arguments.append(f"--exclude=./{quoted}")
    return arguments
