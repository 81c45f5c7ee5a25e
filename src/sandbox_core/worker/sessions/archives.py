"""Saves and restores whole workspaces, and refuses to save what could not be restored.

The Agents SDK saves everything in a workspace, but restores only plain files, folders and links to
paths inside it. Its restore fails at hard links, FIFOs, names with a backslash, and links to
absolute paths, which every virtual environment has. So these go into an inner archive, a plain file
of the SDK's archive, which is unpacked in the sandbox after the rest. Saving refuses, by name, the
files that could not be restored that way either.

An archive without such files is the SDK's own, byte for byte.
"""

from __future__ import annotations

import asyncio
import copy
import io
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
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
from sandbox_core.providers.archives import unsafe_members
from sandbox_core.worker.sdk_session import backend_session

RESTORED_LAST = ".sandbox-core-restored-last.tar"
"""The name of the inner archive, which is unpacked after the rest and then removed."""

_UNPACK = 'cd "$1" && tar -xof "$2" && rm -f -- "$2"'
_NAMED = 5
"""How many of the files that cannot be saved an error names."""


def keep_whole(session: SandboxSession) -> None:
    """Make a session save and restore the files that the SDK alone does not restore."""
    inner = backend_session(session)
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
    """Exclude exactly the skipped paths from an archive, not every file of the same name.

    Backends that run `tar` exclude both "./cache" and "cache", and the latter matches "src/cache".
    """
    exclude: Callable[[], list[str]] | None = getattr(session, "_tar_exclude_args", None)
    if exclude is None:
        return

    def whole_paths() -> list[str]:
        # The arguments are quoted for a shell.
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
    """Turn an archive that the SDK saved into one that it can restore.

    Raises:
        InvalidRequest: The archive has a member that cannot be restored.
    """
    archive = _seekable(saved)
    try:
        with tarfile.open(fileobj=archive, mode="r:*") as tar:
            first: list[tarfile.TarInfo] = []
            last: list[tarfile.TarInfo] = []
            for member in tar.getmembers():
                if not _is_last(member):
                    (first if _refusal(member) is None else last).append(member)
            _check(last, first)
            if len(first) == len(tar.getmembers()):
                archive.seek(0)
                return cast("io.IOBase", archive)
            whole = _split(tar, first, last)
    except tarfile.ReadError:
        # Not an archive but the backend's own snapshot, which the backend restores itself.
        archive.seek(0)
        return cast("io.IOBase", archive)
    archive.close()
    return whole


def checked(data: io.IOBase) -> tuple[io.IOBase, bool]:
    """Return an archive to restore, and whether it has an inner archive to unpack.

    Raises:
        InvalidRequest: The inner archive would be unpacked outside the workspace.
    """
    archive = _seekable(data)
    more = False
    try:
        with tarfile.open(fileobj=archive, mode="r:*") as tar:
            for member in tar.getmembers():
                if _is_last(member):
                    more = True
                    with tarfile.open(fileobj=tar.extractfile(member), mode="r:") as last:
                        _check(last.getmembers(), tar.getmembers())
    except tarfile.ReadError:
        pass  # It is a backend's own snapshot, or the SDK reports what is wrong.
    archive.seek(0)
    return cast("io.IOBase", archive), more


def _split(
    tar: tarfile.TarFile, first: Iterable[tarfile.TarInfo], last: Iterable[tarfile.TarInfo]
) -> io.IOBase:
    """Return the archive with its `last` members in an inner archive."""
    made = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=made, mode="w") as archive:
            for member in first:
                _add(archive, member, tar)
            with tempfile.TemporaryFile() as inner:
                # Small implementations of tar know no extensions but GNU's.
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
        added.type = tarfile.REGTYPE  # A sparse file is read without its holes.
        added.pax_headers = {
            key: value
            for key, value in member.pax_headers.items()
            if not key.startswith("GNU.sparse")
        }
        archive.addfile(added, source.extractfile(member))
    else:
        archive.addfile(added)


def _check(last: Sequence[tarfile.TarInfo], unpacked: Iterable[tarfile.TarInfo]) -> None:
    problems = list(unsafe_members(last, unpacked=unpacked))
    problems += [
        (member, f"is a link to {member.linkname}, outside of it")
        for member in last
        if _leads_out(member)
    ]
    if problems:
        named = "; ".join(
            f"{member.name.removeprefix('./')} {why}" for member, why in problems[:_NAMED]
        )
        more = f"; and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else ""
        raise InvalidRequest(
            f"the workspace could not be restored from its archive: {named}{more}. Remove them or "
            f"keep them outside the workspace."
        )


def _leads_out(member: tarfile.TarInfo) -> bool:
    """Return whether a member is a relative symlink to a path outside the archive."""
    target = PurePosixPath(member.linkname)
    return (
        member.issym()
        and not target.is_absolute()
        and _path(str(PurePosixPath(member.name).parent / target)) is None
    )


def _path(name: str) -> PurePosixPath | None:
    """Return a path in the archive without `.` and `..`; None if it leaves the archive."""
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
    """Return why the SDK's restore would refuse a member; None if it would not."""
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
