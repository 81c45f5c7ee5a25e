"""The handlers of the operations on an open session: commands, files, the workspace."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Literal, cast

from agents.editor import ApplyPatchOperation, ApplyPatchOperationType
from agents.run_config import SandboxArchiveLimits
from agents.sandbox.apply_patch import WorkspaceEditor
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.workspace_paths import SandboxWorkspaceScope, sandbox_path_str
from temporalio import activity

from sandbox_core import messages as m
from sandbox_core import operations as ops
from sandbox_core.codec import (
    load_entry,
)
from sandbox_core.limits import current_limits
from sandbox_core.mounts import entry_with_credentials
from sandbox_core.worker import processes
from sandbox_core.worker.handlers import Call, handles
from sandbox_core.worker.local_sources import check_local_sources
from sandbox_core.worker.output import cut_output

logger = logging.getLogger(__name__)

# --- Commands -----------------------------------------------------------------------------------


@handles(ops.EXEC)
async def _exec(call: Call, request: m.Exec) -> m.ExecResult:
    processes.announce(request, durable=call.durable)
    async with call.pool.use(request) as session:
        result = await processes.run(session, request, durable=call.durable)
    limit = current_limits().output
    return m.ExecResult(
        stdout=cut_output(result.stdout, limit),
        stderr=cut_output(result.stderr, limit),
        exit_code=result.exit_code,
    )


@handles(ops.PTY_EXEC_START)
async def _pty_exec_start(call: Call, request: m.PtyExecStart) -> m.PtyUpdate:
    processes.announce(request, durable=call.durable)
    async with call.pool.use(request) as session:
        update = await processes.start(session, request, durable=call.durable)
    return _pty_update(update)


@handles(ops.PTY_WRITE_STDIN)
async def _pty_write_stdin(call: Call, request: m.PtyWriteStdin) -> m.PtyUpdate:
    processes.announce(request, durable=call.durable)
    async with call.pool.use(request) as session:
        update = await processes.write(session, request, durable=call.durable)
    return _pty_update(update)


def _pty_update(update: PtyExecUpdate) -> m.PtyUpdate:
    return m.PtyUpdate(
        process_id=update.process_id,
        output=update.output,
        exit_code=update.exit_code,
        original_token_count=update.original_token_count,
    )


@handles(ops.PTY_TERMINATE_ALL)
async def _pty_terminate_all(call: Call, request: m.PtyTerminateAll) -> None:
    async with call.pool.use(request) as session:
        await processes.terminate_all(session, durable=call.durable)
        await session.pty_terminate_all()


# --- Files --------------------------------------------------------------------------------------


@handles(ops.READ)
async def _read(call: Call, request: m.Read) -> bytes:
    async with call.pool.use(request) as session:
        return _content(await session.read(Path(request.path), user=request.user))


@handles(ops.WRITE)
async def _write(call: Call, request: m.Write) -> None:
    async with call.pool.use(request) as session:
        await session.write(Path(request.path), io.BytesIO(call.body), user=request.user)


@handles(ops.LS)
async def _ls(call: Call, request: m.Ls) -> m.Listing:
    async with call.pool.use(request) as session:
        entries = await session.ls(request.path, user=request.user)
    return m.Listing(
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
async def _mkdir(call: Call, request: m.Mkdir) -> None:
    async with call.pool.use(request) as session:
        await session.mkdir(request.path, parents=request.parents, user=request.user)


@handles(ops.RM)
async def _rm(call: Call, request: m.Rm) -> None:
    async with call.pool.use(request) as session:
        try:
            await session.rm(request.path, recursive=request.recursive, user=request.user)
        except SandboxError:
            # An earlier attempt whose answer was lost has removed it: then it is not there now.
            if activity.info().attempt == 1 or await _exists(session, request):
                raise


async def _exists(session: SandboxSession, request: m.PathRequest) -> bool:
    path = await session._validate_path_access(request.path)
    found = await session.exec("test", "-e", sandbox_path_str(path), shell=False)
    return found.ok()


@handles(ops.EXTRACT)
async def _extract(call: Call, request: m.Extract) -> None:
    limits = request.archive_limits
    async with call.pool.use(request) as session:
        await session.extract(
            request.path,
            io.BytesIO(call.body),
            compression_scheme=cast("Literal['tar', 'zip'] | None", request.compression_scheme),
            archive_limits=None if limits is None else SandboxArchiveLimits(**limits.model_dump()),
        )


@handles(ops.VALIDATE_PATH_ACCESS)
async def _validate_path_access(call: Call, request: m.ValidatePath) -> m.ValidPath:
    async with call.pool.use(request) as session:
        path = await session._validate_path_access(request.path, for_write=request.for_write)
    return m.ValidPath(path=sandbox_path_str(path))


@handles(ops.APPLY_PATCH)
async def _apply_patch(call: Call, request: m.ApplyPatch) -> m.PatchApplied:
    outputs: list[str] = []
    async with call.pool.use(request) as session:
        editor = WorkspaceEditor(
            session,
            user=request.user,
            workspace_scope=SandboxWorkspaceScope.from_cwd(request.cwd),
        )
        for operation in request.operations:
            result = await editor.apply_operation(
                ApplyPatchOperation(
                    type=cast("ApplyPatchOperationType", operation.type),
                    path=operation.path,
                    diff=operation.diff,
                    move_to=operation.move_to,
                )
            )
            outputs.append(result.output or "")
    return m.PatchApplied(outputs=tuple(outputs))


# --- The workspace as a whole ---------------------------------------------------------------------


@handles(ops.APPLY_MANIFEST)
async def _apply_manifest(call: Call, request: m.ApplyManifest) -> m.Materialized:
    async with call.pool.use(request) as session:
        check_local_sources(session.state.manifest.entries, call.local_sources)
        done = await session.apply_manifest(only_ephemeral=request.only_ephemeral)
    return m.Materialized(
        files=tuple(m.WrittenFile(path=str(f.path), sha256=f.sha256) for f in done.files)
    )


@handles(ops.APPLY_ENTRIES)
async def _apply_entries(call: Call, request: m.ApplyEntries) -> m.Materialized:
    entries = [(Path(placed.path), load_entry(placed.entry)) for placed in request.entries]
    check_local_sources(dict(entries), call.local_sources)
    entries = [(path, entry_with_credentials(entry)) for path, entry in entries]
    async with call.pool.use(request) as session:
        files = await session._apply_entry_batch(entries, base_dir=session._manifest_base_dir())
    return m.Materialized(
        files=tuple(m.WrittenFile(path=str(f.path), sha256=f.sha256) for f in files)
    )


@handles(ops.PERSIST_WORKSPACE)
async def _persist_workspace(call: Call, request: m.PersistWorkspace) -> bytes:
    async with call.pool.use(request) as session:
        return _content(await session.persist_workspace())


@handles(ops.HYDRATE_WORKSPACE)
async def _hydrate_workspace(call: Call, request: m.HydrateWorkspace) -> None:
    async with call.pool.use(request) as session:
        await session.hydrate_workspace(io.BytesIO(call.body))


@handles(ops.RESOLVE_EXPOSED_PORT)
async def _resolve_exposed_port(call: Call, request: m.ResolveExposedPort) -> m.ExposedPort:
    async with call.pool.use(request) as session:
        endpoint = await session.resolve_exposed_port(request.port)
    return m.ExposedPort(
        host=endpoint.host, port=endpoint.port, tls=endpoint.tls, query=endpoint.query
    )


def _content(stream: io.IOBase) -> bytes:
    with stream:
        content = stream.read()
    return content.encode("utf-8") if isinstance(content, str) else bytes(content)
