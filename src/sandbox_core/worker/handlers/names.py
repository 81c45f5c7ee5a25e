"""The handlers for file names: move, compare two paths, and create a file.

From version 0.24 of the Agents SDK, sessions have methods for these. With older versions the
handlers run commands in the sandbox, by the same rules.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Protocol, cast

from agents.sandbox.errors import ExecNonZeroError, SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult
from agents.sandbox.workspace_paths import sandbox_path_str
from temporalio import activity

from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.worker.attempts import attempt
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.registry import handles
from sandbox_core.worker.handlers.streams import content_of
from sandbox_core.worker.sdk_session import create_file, creates_files, validated

_IS_THERE = '[ -e "$1" ] || [ -L "$1" ]'
_MOVE = (
    'if [ ! -L "$1" ] && [ ! -f "$1" ]; then '
    'echo "Move source must be a regular file or symlink" >&2; exit 1; fi; '
    'exec mv -fT -- "$1" "$2"'
)
_SAME = '[ "$1" -ef "$2" ]'
_SAME_UNLESS_SYMLINKS = f'[ ! -L "$1" ] && [ ! -L "$2" ] && {_SAME}'
# Unlike a rename, a link never replaces a file.
_LINK = 'if [ -e "$2" ] || [ -L "$2" ]; then exit 17; fi; ln -- "$1" "$2"'
_EXISTS = 17


class _KnowsNames(Protocol):
    def mv(self, source: Path, destination: Path, *, user: str | None) -> Awaitable[None]: ...

    def same_file(
        self, left: Path, right: Path, *, follow_symlinks: bool, user: str | None
    ) -> Awaitable[bool]: ...


@handles(ops.MOVE)
async def _move(call: Call, request: m.MoveRequest) -> None:
    async with call.pool.use(request) as session:
        try:
            await _moved(session, request)
        except SandboxError as error:
            if attempt() == 1 or not await _was_moved(session, request):
                # A retry would take "no such file" for an earlier attempt's success.
                error.retryable = bool(error.retryable)
                raise


async def _moved(session: SandboxSession, request: m.MoveRequest) -> None:
    if hasattr(session, "mv"):
        own = cast("_KnowsNames", session)
        await own.mv(Path(request.source), Path(request.destination), user=request.user)
        return
    source = await _entry(session, request.source, for_write=True)
    destination = await _entry(session, request.destination, for_write=True)
    moved = await _run(session, _MOVE, source, destination, user=request.user)
    if not moved.ok():
        raise ExecNonZeroError(moved, command=("mv", source, destination))


async def _was_moved(session: SandboxSession, request: m.MoveRequest) -> bool:
    return await is_gone(session, request.source, user=request.user) and not await is_gone(
        session, request.destination, user=request.user
    )


async def is_gone(session: SandboxSession, path: str, *, user: str | None = None) -> bool:
    """Return whether nothing exists at `path`, not even a dangling symlink."""
    answer = await _run(session, _IS_THERE, await _entry(session, path), user=user)
    return answer.exit_code == 1  # Other failures say nothing about the path.


@handles(ops.SAME_FILE)
async def _same_file(call: Call, request: m.SameFileRequest) -> m.SameFileResponse:
    async with call.pool.use(request) as session:
        return m.SameFileResponse(same=await _is_same(session, request))


async def _is_same(session: SandboxSession, request: m.SameFileRequest) -> bool:
    if hasattr(session, "same_file"):
        return await cast("_KnowsNames", session).same_file(
            Path(request.left),
            Path(request.right),
            follow_symlinks=request.follow_symlinks,
            user=request.user,
        )
    place = _target if request.follow_symlinks else _entry
    script = _SAME if request.follow_symlinks else _SAME_UNLESS_SYMLINKS
    paths = [await place(session, path) for path in (request.left, request.right)]
    answer = await _run(session, script, *paths, user=request.user)
    if answer.exit_code not in (0, 1):
        raise ExecNonZeroError(answer, command=("test", paths[0], "-ef", paths[1]))
    return answer.exit_code == 0


async def write_new(session: SandboxSession, request: m.WriteRequest, body: bytes) -> None:
    """Create a file, and its parent folders.

    Raises:
        FileExistsError: The file exists, and was not created by an earlier attempt.
    """
    try:
        await _created(session, request, body)
    except FileExistsError:
        if attempt() == 1 or await _content(session, request) != body:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), request.path) from None


async def _created(session: SandboxSession, request: m.WriteRequest, body: bytes) -> None:
    path, user = Path(request.path), request.user
    if creates_files(session):
        await create_file(session, path, io.BytesIO(body), user=user)
        return
    await session.mkdir(path.parent, parents=True, user=user)
    draft = path.with_name(f".{path.name}.{_this_operation()}")
    try:
        await session.write(draft, io.BytesIO(body), user=user)
        names = [await _entry(session, str(name), for_write=True) for name in (draft, path)]
        linked = await _run(session, _LINK, *names, user=user)
    finally:
        with suppress(SandboxError):
            await session.rm(draft, user=user)
    if linked.exit_code == _EXISTS:
        raise FileExistsError
    if not linked.ok():
        raise ExecNonZeroError(linked, command=("ln", *names))


def _this_operation() -> str:
    """Return an id that is unique to the operation and the same in all its attempts."""
    about = activity.info()
    named = f"{about.workflow_id} {about.workflow_run_id} {about.activity_id}"
    return hashlib.sha256(named.encode()).hexdigest()[:16]


async def _content(session: SandboxSession, request: m.WriteRequest) -> bytes | None:
    try:
        return await content_of(await session.read(Path(request.path), user=request.user))
    except SandboxError:
        return None


async def _target(session: SandboxSession, path: str) -> str:
    """Return `path` with all symlinks resolved."""
    return sandbox_path_str(await validated(session, path))


async def _entry(session: SandboxSession, path: str, *, for_write: bool = False) -> str:
    """Return `path` with the symlinks of its folder resolved, but not its last component."""
    pure = PurePosixPath(path)
    folder = await validated(session, str(pure.parent), for_write=for_write)
    return sandbox_path_str(folder / pure.name)


async def _run(session: SandboxSession, script: str, *paths: str, user: str | None) -> ExecResult:
    return await session.exec("sh", "-c", script, "sh", *paths, shell=False, user=user)
