"""Workspaces are saved and restored whole, or refused when they are saved.

The Agents SDK saves whatever is in a workspace, but restores only plain files, folders and links to
what is inside. Its restore fails at hard links, FIFOs, names with a backslash, and links to
absolute paths, which every virtual environment has. They are kept apart when a workspace is saved:
in an archive that is one plain file of it, and that is unpacked once the rest is in the sandbox.
What cannot come back so is refused at once, by name.

An archive without any of these is the SDK's own, byte by byte.
"""

from __future__ import annotations

import asyncio
import copy
import io
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import IO, cast

from agents.sandbox.errors import WorkspaceArchiveReadError, WorkspaceArchiveWriteError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.util.tar_utils import (
    UnsafeTarMemberError,
    _validate_symlink_target,
    safe_tar_member_rel_path,
)
from agents.sandbox.workspace_paths import posix_path_for_error

from sandbox_core.errors import InvalidRequest

RESTORED_LAST = ".sandbox-core-restored-last.tar"
"""The name in an archive of what is unpacked when the rest is there; it does not stay."""

_UNPACK = 'cd "$1" && tar -xof "$2" && rm -f -- "$2"'
_NAMED = 5
"""How many of the files that cannot be saved an error names."""


def keep_whole(session: SandboxSession) -> None:
    """Have a session save and restore what the SDK alone does not restore."""
    inner = session._inner
    persist, hydrate = inner.persist_workspace, inner.hydrate_workspace

    async def persist_workspace() -> io.IOBase:
        saved = await persist()
        try:
            return await asyncio.to_thread(packed, saved)
        except InvalidRequest as error:
            root = posix_path_for_error(inner.state.manifest.root)
            raise WorkspaceArchiveReadError(path=root, cause=error, retryable=False) from error

    async def hydrate_workspace(data: io.IOBase) -> None:
        try:
            archive, more = await asyncio.to_thread(checked, data)
        except InvalidRequest as error:
            root = posix_path_for_error(inner.state.manifest.root)
            raise WorkspaceArchiveWriteError(path=root, cause=error, retryable=False) from error
        await hydrate(archive)
        if more:
            await _unpack(inner)

    _exclude_by_whole_path(inner)
    inner.persist_workspace = persist_workspace  # type: ignore[method-assign]  # this one's only
    inner.hydrate_workspace = hydrate_workspace  # type: ignore[method-assign]  # this one's only


def _exclude_by_whole_path(session: BaseSandboxSession) -> None:
    """Leave out of an archive what is not to be saved, and no other of the same name.

    Backends that have `tar` write it exclude "cache" beside "./cache", and with it "src/cache".
    """
    exclude: Callable[[], list[str]] | None = getattr(session, "_tar_exclude_args", None)
    if exclude is None:
        return

    def whole_paths() -> list[str]:
        # They are quoted for a shell.
        return [arg for arg in exclude() if shlex.split(arg)[0].startswith("--exclude=./")]

    session._tar_exclude_args = whole_paths  # type: ignore[attr-defined]  # some backends' own


async def _unpack(session: BaseSandboxSession) -> None:
    root = session.state.manifest.root
    done = await session.exec("sh", "-c", _UNPACK, "sh", root, RESTORED_LAST, shell=False)
    if not done.ok():
        raise WorkspaceArchiveWriteError(
            path=posix_path_for_error(root),
            context={
                "reason": "links_not_restored",
                "stderr": done.stderr.decode("utf-8", errors="replace"),
            },
        )


def packed(saved: io.IOBase) -> io.IOBase:
    """Return an archive that the SDK restores, of one that it has saved.

    Raises:
        InvalidRequest: There is something in it that cannot be restored.
    """
    archive = _seekable(saved)
    try:
        with tarfile.open(fileobj=archive, mode="r:*") as tar:
            members = [member for member in tar.getmembers() if not _is_last(member)]
            last = [member for member in members if _refusal(member) is not None]
            _check(last, members)
            if not last and len(members) == len(tar.getmembers()):
                archive.seek(0)
                return cast("io.IOBase", archive)
            whole = _split(tar, members, last)
    except tarfile.ReadError:
        # No archive, but a snapshot of the backend's own, which restores the workspace itself.
        archive.seek(0)
        return cast("io.IOBase", archive)
    archive.close()
    return whole


def checked(data: io.IOBase) -> tuple[io.IOBase, bool]:
    """Return an archive to restore, and whether there is more to unpack in it.

    Raises:
        InvalidRequest: What is to be unpacked would be written outside of the workspace.
    """
    archive = _seekable(data)
    more = False
    try:
        with tarfile.open(fileobj=archive, mode="r:*") as tar:
            for member in tar.getmembers():
                if _is_last(member):
                    more = True
                    with tarfile.open(fileobj=tar.extractfile(member), mode="r:") as last:
                        _check(last.getmembers(), [*tar.getmembers(), *last.getmembers()])
    except tarfile.ReadError:
        pass  # The SDK says what is wrong with it, or it is a backend's own.
    archive.seek(0)
    return cast("io.IOBase", archive), more


def _split(
    tar: tarfile.TarFile, members: Iterable[tarfile.TarInfo], last: list[tarfile.TarInfo]
) -> io.IOBase:
    """Return the archive with its `last` members in an archive within."""
    kept_apart = {id(member) for member in last}
    made = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=made, mode="w") as archive:
            for member in members:
                if id(member) not in kept_apart:
                    _add(archive, member, tar)
            with tempfile.TemporaryFile() as inner:
                # Of the extensions to the format, the small implementations know GNU's.
                with tarfile.open(fileobj=inner, mode="w", format=tarfile.GNU_FORMAT) as within:
                    for member in last:
                        _add(within, member, tar)
                described = tarfile.TarInfo(RESTORED_LAST)
                described.size, described.mode = inner.tell(), 0o600
                inner.seek(0)
                archive.addfile(described, inner)
    except BaseException:
        made.close()
        raise
    made.seek(0)
    return cast("io.IOBase", made)


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, source: tarfile.TarFile) -> None:
    added = copy.copy(member)
    if member.isreg():
        added.type = tarfile.REGTYPE  # A file with holes is read without them.
        added.pax_headers = {
            key: value
            for key, value in member.pax_headers.items()
            if not key.startswith("GNU.sparse")
        }
        archive.addfile(added, source.extractfile(member))
    else:
        archive.addfile(added)


def _check(last: Iterable[tarfile.TarInfo], members: Iterable[tarfile.TarInfo]) -> None:
    paths = {_path(member.name): member for member in members}
    problems = {
        member.name.removeprefix("./"): problem
        for member in last
        if (problem := _problem(member, paths)) is not None
    }
    if problems:
        named = "; ".join(f"{name} {why}" for name, why in list(problems.items())[:_NAMED])
        more = f"; and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else ""
        raise InvalidRequest(
            f"the workspace could not be restored from what is saved of it: {named}{more}. Remove "
            f"them, or keep them outside of the workspace."
        )


def _problem(
    member: tarfile.TarInfo, paths: dict[PurePosixPath | None, tarfile.TarInfo]
) -> str | None:
    """Return why a member cannot be unpacked in a workspace that has these others, if so."""
    path = _path(member.name)
    if path is None or ".." in PurePosixPath(member.name).parts:
        return "is outside of it"
    if any(paths[parent].issym() for parent in path.parents if parent in paths):
        return "is below a link"
    target = PurePosixPath(member.linkname)
    if member.issym():
        inside = target.is_absolute() or _path(str(path.parent / target)) is not None
        return None if inside else f"is a link to {member.linkname}, outside of it"
    if member.islnk():
        saved = ".." not in target.parts and _path(member.linkname) in paths
        return None if saved else "is a hard link to what is not saved"
    if member.isreg() or member.isdir() or member.isfifo():
        return None
    return "is a device"


def _path(name: str) -> PurePosixPath | None:
    """Return a path in the archive without `.` and `..`, or None if it leaves the archive."""
    parts: list[str] = []
    path = PurePosixPath(name)
    if path.is_absolute():
        return None
    for part in path.parts:
        if part != "..":
            parts.append(part)
        elif not parts:
            return None
        else:
            parts.pop()
    return PurePosixPath(*parts)


def _refusal(member: tarfile.TarInfo) -> str | None:
    """Return why the SDK's restore would refuse a member, if it would."""
    try:
        path = safe_tar_member_rel_path(member, allow_symlinks=True)
        if path is not None:
            _validate_symlink_target(member, rel_path=path, allow_external_symlink_targets=False)
    except UnsafeTarMemberError as error:
        return error.reason
    return None


def _is_last(member: tarfile.TarInfo) -> bool:
    return _path(member.name) == PurePosixPath(RESTORED_LAST)


def _seekable(stream: io.IOBase) -> IO[bytes]:
    if stream.seekable():
        return cast("IO[bytes]", stream)
    copied = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with stream:
        shutil.copyfileobj(cast("IO[bytes]", stream), copied)
    copied.seek(0)
    return copied
