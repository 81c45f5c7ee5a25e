"""Workspaces as tar archives: which ones may be unpacked, and which names are left out.

A workspace holds whatever an agent has made: virtual environments with hard links and with links to
absolute paths, FIFOs, names of any bytes. All of that is restored. What is refused is an archive
that would write outside of the folder it is unpacked in.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath


class UnsafeArchive(ValueError):
    """An archive with a member that must not be unpacked; the message names it, and says why."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"{member!r} {reason}")
        self.member = member
        self.reason = reason


def check_archive(data: io.IOBase) -> None:
    """Return if a tar archive can be unpacked without writing outside of its folder.

    The stream is left at its beginning.

    Args:
        data: The archive; compressed with gzip, bzip2 or xz, or not. It has to be seekable.

    Raises:
        UnsafeArchive: It has a member of `unsafe_members`, or is no tar archive.
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
    """Yield each member that must not be unpacked, and why: it would write outside of the folder.

    Links may lead anywhere, as they do in a workspace, but no member may be below a link, and a
    hard link has to be to a member before it.

    Args:
        members: What is to be unpacked, in this order.
        unpacked: What is in the folder already, in the order in which it was unpacked.
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
    # A hard link to a link is one, too. What takes the place of a link is none any more.
    if member.issym() or (member.islnk() and _parts(member.linkname) in links):
        links.add(parts)
    else:
        links.discard(parts)
    seen.add(parts)


def _parts(name: str) -> tuple[str, ...] | None:
    path = PurePosixPath(name)
    return None if path.is_absolute() or ".." in path.parts else path.parts


def excluding(paths: Iterable[Path]) -> list[str]:
    """Return the arguments by which ``tar`` leaves out paths that are relative to the workspace."""
    arguments = []
    for path in sorted({path.as_posix() for path in paths} - {"."}):
        # GNU tar and busybox take patterns: a name that looks like one has to be quoted.
        quoted = "".join(f"\\{c}" if c in "*?[\\" else c for c in path)
        arguments.append(f"--exclude=./{quoted}")
    return arguments
