"""The handlers of the operations on files."""

from __future__ import annotations

import io
import shlex
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol, cast

from agents.editor import ApplyPatchOperation, ApplyPatchOperationType
from agents.run_config import SandboxArchiveLimits
from agents.sandbox.apply_patch import WorkspaceEditor
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.workspace_paths import SandboxWorkspaceScope, sandbox_path_str

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.worker.attempts import attempt
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.names import is_gone, write_new
from sandbox_core.worker.handlers.registry import handles, handles_bytes
from sandbox_core.worker.handlers.special_files import unless_special
from sandbox_core.worker.handlers.streams import content_of
from sandbox_core.worker.sdk_session import validated

MAX_ENTRIES = 30_000
"""The most entries that `ls` returns. A workflow decodes ten of them in a fifth of a
millisecond, and Temporal gives its task two seconds."""


class _ReadsPrefixes(Protocol):
    """The method that sessions have from version 0.24 of the Agents SDK."""

    async def read_bounded(self, path: Path, *, max_bytes: int) -> bytes: ...


@handles(ops.READ)
async def _read(call: Call, request: m.ReadRequest) -> bytes:
    async with call.pool.use(request) as session:
        return await unless_special(session, request.path, _content(session, request))


async def _content(session: SandboxSession, request: m.ReadRequest) -> bytes:
    path, most = Path(request.path), request.max_bytes
    if most is not None and hasattr(session, "read_bounded"):
        return await cast("_ReadsPrefixes", session).read_bounded(path, max_bytes=most)
    return await content_of(await session.read(path, user=request.user), most)


@handles_bytes(ops.WRITE)
async def _write(call: Call, request: m.WriteRequest, body: bytes) -> None:
    async with call.pool.use(request) as session:
        if request.new:
            await write_new(session, request, body)
            return
        writing = session.write(Path(request.path), io.BytesIO(body), user=request.user)
        await unless_special(session, request.path, writing)


@handles(ops.LS)
async def _ls(call: Call, request: m.LsRequest) -> m.LsResponse:
    async with call.pool.use(request) as session:
        entries = await session.ls(Path(request.path), user=request.user)
    if len(entries) > MAX_ENTRIES:
        raise InvalidRequest(
            f"ls {request.path!r}: it has {len(entries):,} entries, more than the {MAX_ENTRIES:,} "
            f"that a workflow can process. List it with exec, for example with "
            f"`ls -f {shlex.quote(request.path)} | head`, or list its subdirectories."
        )
    return m.LsResponse(
        entries=tuple(
            m.DirectoryEntry(
                path=entry.path,
                kind=entry.kind.value,
                owner=entry.owner,
                group=entry.group,
                size=entry.size,
                permissions=entry.permissions.model_dump(mode="json"),
            )
            for entry in entries
        )
    )


@handles(ops.MKDIR)
async def _mkdir(call: Call, request: m.MkdirRequest) -> None:
    async with call.pool.use(request) as session:
        try:
            await session.mkdir(Path(request.path), parents=request.parents, user=request.user)
        except SandboxError:
            # An earlier attempt, whose answer was lost, may have created it.
            if attempt() == 1 or not await _is_directory(session, request.path):
                raise


@handles(ops.RM)
async def _rm(call: Call, request: m.RmRequest) -> None:
    async with call.pool.use(request) as session:
        try:
            await session.rm(Path(request.path), recursive=request.recursive, user=request.user)
        except SandboxError:
            # An earlier attempt, whose answer was lost, may have removed it.
            if attempt() == 1 or not await is_gone(session, request.path):
                raise


async def _is_directory(session: SandboxSession, path: str) -> bool:
    resolved = sandbox_path_str(await validated(session, path))
    return (await session.exec("test", "-d", resolved, shell=False)).ok()


@handles_bytes(ops.EXTRACT)
async def _extract(call: Call, request: m.ExtractRequest, body: bytes) -> None:
    limits = request.archive_limits
    async with call.pool.use(request) as session:
        extracting = session.extract(
            Path(request.path),
            io.BytesIO(body),
            compression_scheme=cast("Literal['tar', 'zip'] | None", request.compression_scheme),
            archive_limits=None if limits is None else SandboxArchiveLimits(**limits.model_dump()),
        )
        await unless_special(session, request.path, extracting)


@handles(ops.VALIDATE_PATH_ACCESS)
async def _validate_path_access(
    call: Call, request: m.ValidatePathAccessRequest
) -> m.ValidatePathAccessResponse:
    async with call.pool.use(request) as session:
        path = await validated(session, request.path, for_write=request.for_write)
    return m.ValidatePathAccessResponse(path=sandbox_path_str(path))


@handles(ops.APPLY_PATCH)
async def _apply_patch(call: Call, request: m.ApplyPatchRequest) -> m.ApplyPatchResponse:
    outputs: list[str] = []
    async with call.pool.use(request) as session:
        editor = WorkspaceEditor(
            session,
            user=request.user,
            workspace_scope=SandboxWorkspaceScope.from_cwd(request.cwd),
        )
        for operation in request.operations:
            applying = editor.apply_operation(
                ApplyPatchOperation(
                    type=cast("ApplyPatchOperationType", operation.type),
                    path=operation.path,
                    diff=operation.diff,
                    move_to=operation.move_to,
                )
            )
            path = str(PurePosixPath(request.cwd or "", operation.path))
            result = await unless_special(session, path, applying)
            outputs.append(result.output or "")
    return m.ApplyPatchResponse(outputs=tuple(outputs))
