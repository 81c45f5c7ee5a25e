"""Workspaces as tar archives: which ones may be unpacked, and which names are left out.

A workspace holds whatever an agent has made: virtual environments with hard links and with links to
absolute paths, FIFOs, names of any bytes. All of that is restored. What is refused is an archive
that would write outside of the folder it is unpacked in.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath


class UnsafeArchive(ValueError):
    """An archive with a member that must not be unpacked; the message names it, and says why."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"{member!r} {reason}")
        self.member = member
        self.reason = reason


def check_archive(data: io.IOBase) -> None:
    """Return if a tar archive can be unpacked without writing outside of its folder.

    Links may lead anywhere, as they do in a workspace, but no member may be below a link, and a
    hard link has to be to a member before it. The stream is left at its beginning.

    Args:
        data: The archive; compressed with gzip, bzip2 or xz, or not. It has to be seekable.

    Raises:
        UnsafeArchive: It has such a member, or is no tar archive.
    """
    links: set[tuple[str, ...]] = set()
    seen: set[tuple[str, ...]] = set()
    try:
        with tarfile.open(fileobj=data, mode="r:*") as tar:
            for member in tar:
                parts = _parts(member.name, "leads out of the workspace")
                if any(parts[:depth] in links for depth in range(1, len(parts))):
                    raise UnsafeArchive(member.name, "is below a link")
                if member.isdev() and not member.isfifo():
                    raise UnsafeArchive(member.name, "is a device")
                if member.islnk() and _parts(member.linkname, "leads out") not in seen:
                    raise UnsafeArchive(member.name, f"is a hard link to {member.linkname!r}")
                # A file in the place of a link is no link any more, and the other way round.
                links.discard(parts)
                if member.issym():
                    links.add(parts)
                seen.add(parts)
    except tarfile.TarError as error:
        raise UnsafeArchive("the archive", f"cannot be read: {error}") from error
    finally:
        data.seek(0)


def _parts(name: str, reason: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise UnsafeArchive(name, reason)
    return path.parts


def excluding(paths: Iterable[Path]) -> list[str]:
    """Return the arguments by which ``tar`` leaves out paths that are relative to the workspace."""
    arguments = []
    for path in sorted({path.as_posix() for path in paths} - {"."}):
        # GNU tar and busybox take patterns: a name that looks like one has to be quoted.
        quoted = "".join(f"\\{c}" if c in "*?[\\" else c for c in path)
        arguments.append(f"--exclude=./{quoted}")
    return arguments
