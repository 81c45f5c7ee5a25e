"""The handlers of the operations on files."""

from __future__ import annotations

import asyncio
import io
import shlex
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from agents.editor import ApplyPatchOperation, ApplyPatchOperationType
from agents.run_config import SandboxArchiveLimits
from agents.sandbox.apply_patch import WorkspaceEditor
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.workspace_paths import SandboxWorkspaceScope, sandbox_path_str
from temporalio import activity

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.registry import handles, handles_bytes
from sandbox_core.worker.handlers.special_files import unless_special

MAX_ENTRIES = 30_000
"""The most entries that `ls` answers with. A workflow decodes ten of them in a fifth of a
millisecond, and Temporal gives its task two seconds."""


@handles(ops.READ)
async def _read(call: Call, request: m.ReadRequest) -> bytes:
    async with call.pool.use(request) as session:
        reading = session.read(Path(request.path), user=request.user)
        return await content_of(await unless_special(session, request.path, reading))


@handles_bytes(ops.WRITE)
async def _write(call: Call, request: m.WriteRequest, body: bytes) -> None:
    async with call.pool.use(request) as session:
        writing = session.write(Path(request.path), io.BytesIO(body), user=request.user)
        await unless_special(session, request.path, writing)


@handles(ops.LS)
async def _ls(call: Call, request: m.LsRequest) -> m.LsResponse:
    async with call.pool.use(request) as session:
        entries = await session.ls(Path(request.path), user=request.user)
    if len(entries) > MAX_ENTRIES:
        raise InvalidRequest(
            f"ls {request.path!r}: it has {len(entries):,} entries, more than the {MAX_ENTRIES:,} "
            f"that a workflow takes. List it with exec, for instance by "
            f"`ls -f {shlex.quote(request.path)} | head`, or list its folders."
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
        await session.mkdir(Path(request.path), parents=request.parents, user=request.user)


@handles(ops.RM)
async def _rm(call: Call, request: m.RmRequest) -> None:
    async with call.pool.use(request) as session:
        try:
            await session.rm(Path(request.path), recursive=request.recursive, user=request.user)
        except SandboxError:
            # An earlier attempt whose answer was lost has removed it: then it is not there now.
            if activity.info().attempt == 1 or await _exists(session, request):
                raise


async def _exists(session: SandboxSession, request: m.PathRequest) -> bool:
    path = await session._validate_path_access(Path(request.path))
    found = await session.exec("test", "-e", sandbox_path_str(path), shell=False)
    return found.ok()


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
        path = await session._validate_path_access(Path(request.path), for_write=request.for_write)
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


async def content_of(stream: io.IOBase) -> bytes:
    """Return what is left of a stream, and close it; text as UTF-8."""
    # A file may be large, and on a slow disk.
    content = await asyncio.to_thread(_rest_of, stream)
    return content.encode("utf-8") if isinstance(content, str) else bytes(content)


def _rest_of(stream: io.IOBase) -> str | bytes:
    with stream:
        return cast("str | bytes", stream.read())
