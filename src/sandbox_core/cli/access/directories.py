"""Copies directories into and out of sandboxes, packed by tar."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agents.sandbox.errors import SandboxError
from rich.console import Console

from sandbox_core.cli.access.visit import Visit, own_id
from sandbox_core.errors import InvalidRequest, OperationFailed, SandboxCoreError
from sandbox_core.providers.archives import UnsafeArchive, check_archive
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops

_TIMEOUT_S = 3600.0
_MODE = 0o1777  # Without set-user-id and set-group-id.

# The archive is not a part of itself.
_PACK = 'tar -c -f "$PWD/$0" --exclude="./$0" -C "$1" .'

# A directory that exists gets the copy under its name. No directory is unpacked through a link.
_UNPACK = """
if test -d "$1" && test "$2" != .; then to=$1/$2; else to=$1; fi
tar -tf "$0" | while IFS= read -r name; do
  case $name in
    */) if test -L "$to/${name%/}"; then echo "$to/${name%/} is a link" >&2; exit 9; fi ;;
  esac
done || exit
mkdir -p -- "$to" && tar -x -o -f "$PWD/$0" -C "$to"
"""


async def send(visit: Visit, source: Path, target: str, *, name: Path, user: str | None) -> None:
    """Copy a local directory into a sandbox; if it is named ``.``, only what it contains.

    Raises:
        InvalidRequest: A local file cannot be read.
        OperationFailed: It cannot be unpacked there.
        SandboxError: `target` is outside the workspace, or the backend failed.
    """
    request = m.ValidatePathAccessRequest(session=visit.session, path=target, for_write=True)
    there = (await visit.perform(ops.VALIDATE_PATH_ACCESS, request)).path
    with _telling(f"packing {source}"):
        content = await asyncio.to_thread(_packed, source)
    archive = _archive_name()
    with _telling(f"sending {len(content):,} bytes"):
        write = m.WriteRequest(session=visit.session, path=archive, user=user)
        await visit.perform(ops.WRITE, write, content)
        try:
            await _run(visit, _UNPACK, archive, there, name.name or ".", user=user)
        finally:
            await _remove(visit, archive, user)


async def receive(visit: Visit, source: str, target: Path, *, user: str | None) -> bool:
    """Copy a sandbox's directory to a local one; return False if `source` is no directory.

    Raises:
        InvalidRequest: A local file or link is in the way.
        OperationFailed: It cannot be packed there, or the archive is unsafe.
        SandboxError: `source` is outside the workspace, or the backend failed.
    """
    request = m.ValidatePathAccessRequest(session=visit.session, path=source)
    there = (await visit.perform(ops.VALIDATE_PATH_ACCESS, request)).path
    if (await _exec(visit, 'test -d "$0"', there, user=user)).exit_code != 0:
        return False
    archive = _archive_name()
    with _telling(f"receiving {source}"):
        try:
            await _run(visit, _PACK, archive, there, user=user)
            read = m.ReadRequest(session=visit.session, path=archive, user=user)
            content = await visit.perform(ops.READ, read)
        finally:
            await _remove(visit, archive, user)
        contents_only = source.endswith(("/.", "/..")) or source in (".", "./", "..")
        name = "" if contents_only else Path(there).name
        await asyncio.to_thread(_unpack, content, target, name)
    return True


def _packed(source: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(source, arcname=".")
    return packed.getvalue()


def _unpack(content: bytes, target: Path, name: str) -> None:
    """Unpack an archive as `target`, or in it under a name if it exists; all of it or nothing."""
    if target.is_dir():
        target = target / name
    data = io.BytesIO(content)
    try:
        check_archive(data)
    except UnsafeArchive as error:
        raise OperationFailed(f"the directory cannot be copied: {error}") from error
    whole = target.resolve()
    partial = Path(tempfile.mkdtemp(prefix=f".{whole.name}.", dir=whole.parent))
    try:
        with tarfile.open(fileobj=data) as tar:
            # `check_archive` has looked; Python's own filters refuse links that lead anywhere.
            tar.extraction_filter = lambda member, path: member
            members = tar.getmembers()
            for member in members:
                member.uid, member.gid = os.getuid(), os.getgid()
                member.uname = member.gname = ""
                member.mode &= _MODE
            # `_new` sees each just before it is extracted.
            tar.extractall(partial, _new(members, partial))  # noqa: S202 - `check_archive` and `_new` do
        if whole.exists():
            _merge(partial, whole)
        else:
            partial.rename(whole)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _new(members: Iterable[tarfile.TarInfo], target: Path) -> Iterator[tarfile.TarInfo]:
    """Yield members as long as nothing is in their way.

    Python writes through a link that an earlier member has made. `check_archive` knows links by
    their names, but some file systems take names for the same that differ, in case for example.

    Raises:
        OperationFailed: There is a link above the member, or a link or file in its place.
    """
    for member in members:
        at = target / member.name
        between = [each for each in at.parents if target in each.parents]
        is_there = at.is_symlink() or (at.exists() and not (at.is_dir() and member.isdir()))
        if is_there or any(each.is_symlink() for each in between):
            raise OperationFailed(
                f"the directory cannot be copied: {member.name!r} is in its archive twice"
            )
        yield member


def _merge(source: Path, target: Path) -> None:
    """Move what is in a directory into another, following no link there."""
    if target.is_symlink() or not target.is_dir():
        raise InvalidRequest(f"{str(target)!r} is a file or a link, and a directory in the sandbox")
    for each in source.iterdir():
        there = target / each.name
        if each.is_dir() and not each.is_symlink():
            if os.path.lexists(there):
                _merge(each, there)
            else:
                each.rename(there)
        elif there.is_dir() and not there.is_symlink():
            raise InvalidRequest(f"{str(there)!r} is a directory, and a file in the sandbox")
        else:
            each.replace(there)


def _archive_name() -> str:
    return f".{own_id()}.tar"


async def _exec(visit: Visit, script: str, *words: str, user: str | None) -> m.ExecResponse:
    request = m.ExecRequest(
        session=visit.session,
        operation_id=own_id(),
        command=("sh", "-c", script, *words),
        timeout=_TIMEOUT_S,
        shell=False,
        user=user,
    )
    return await visit.perform(ops.EXEC, request)


async def _run(visit: Visit, script: str, *words: str, user: str | None) -> None:
    result = await _exec(visit, script, *words, user=user)
    if result.exit_code != 0:
        said = result.stderr.decode(errors="replace").strip()
        raise OperationFailed(f"tar in the sandbox: {said or f'exit code {result.exit_code}'}")


async def _remove(visit: Visit, archive: str, user: str | None) -> None:
    with suppress(SandboxError, SandboxCoreError):  # Perhaps it was never made.
        await visit.perform(ops.RM, m.RmRequest(session=visit.session, path=archive, user=user))


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Show on a terminal what takes its time."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
