"""The activities of a worker: one handler per row of the table."""

from __future__ import annotations

import io
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from agents.editor import ApplyPatchOperation, ApplyPatchOperationType
from agents.run_config import SandboxArchiveLimits
from agents.sandbox.apply_patch import WorkspaceEditor
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.workspace_paths import SandboxWorkspaceScope, sandbox_path_str
from temporalio import activity

from sandbox_core import messages as m
from sandbox_core import operations as ops
from sandbox_core.codec import (
    JsonObject,
    dump_state,
    load_entry,
    load_manifest,
    load_options,
    load_snapshot,
    load_state,
    state_delta,
)
from sandbox_core.errors import (
    InvalidOptions,
    SessionNotOpen,
)
from sandbox_core.limits import current_limits
from sandbox_core.messages import Message
from sandbox_core.operations import Operation, RequestT, ResponseT
from sandbox_core.providers import SupportsDestroy
from sandbox_core.providers.registry import Provider
from sandbox_core.worker import processes
from sandbox_core.worker.local_sources import check_local_sources, read_from_any_folder
from sandbox_core.worker.output import cut_output
from sandbox_core.worker.sessions import (
    Client,
    OpenSession,
    SessionPool,
    configure,
    restart,
    resume,
    sandbox_identity,
)

logger = logging.getLogger(__name__)

Answer: TypeAlias = "JsonObject | bytes | None"
Activity: TypeAlias = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a handler works with: the provider, its client, and the sessions held here."""

    provider: Provider
    client: Client
    pool: SessionPool
    worker_queue: str | None = None
    local_sources: tuple[Path, ...] = ()
    body: bytes = b""


Handler: TypeAlias = Callable[[Call, Message], Awaitable["Message | bytes | None"]]
HANDLERS: dict[str, Handler] = {}


def _handles(
    operation: Operation[RequestT, ResponseT],
) -> Callable[
    [Callable[[Call, RequestT], Awaitable[ResponseT]]],
    Callable[[Call, RequestT], Awaitable[ResponseT]],
]:
    def register(
        handler: Callable[[Call, RequestT], Awaitable[ResponseT]],
    ) -> Callable[[Call, RequestT], Awaitable[ResponseT]]:
        HANDLERS[operation.name] = cast("Handler", handler)
        return handler

    return register


# --- Lifecycle ----------------------------------------------------------------------------------


@_handles(ops.CREATE_SESSION)
async def _create_session(call: Call, request: m.CreateSession) -> m.SessionOpened:
    held = call.pool.created(request.create_key)
    if held is None:
        manifest = None if request.manifest is None else load_manifest(request.manifest)
        if manifest is not None:
            check_local_sources(manifest.entries, call.local_sources)
        session = await call.client.create(
            manifest=manifest,
            snapshot=None if request.snapshot is None else load_snapshot(request.snapshot),
            options=_options(call.provider, request.options),
        )
        read_from_any_folder(session)
        held = OpenSession(
            session=session,
            ref=m.SessionRef(session_id=str(session.state.session_id), epoch=request.epoch),
            create_key=request.create_key,
        )
        call.pool.add(held)
    known: JsonObject = {} if request.manifest is None else {"manifest": request.manifest}
    return _opened(call, held, known)


def _options(provider: Provider, data: JsonObject | None) -> BaseSandboxClientOptions:
    expected = provider.options_type
    takes = f"provider {provider.name!r} takes {expected.__module__}.{expected.__qualname__}"
    if data is None:
        try:
            return provider.default_options()
        except ValueError as error:
            raise InvalidOptions(
                f"{takes}, and has no default: pass options=... ({error})"
            ) from error
    expected_type = expected.model_fields["type"].default
    if data.get("type") != expected_type:
        raise InvalidOptions(
            f"{takes} (type {expected_type!r}); it was given options of type {data.get('type')!r}."
        )
    return load_options(data)


@_handles(ops.RESUME_SESSION)
async def _resume_session(call: Call, request: m.ResumeSession) -> m.SessionOpened:
    state = load_state(request.state)
    session_id = str(state.session_id)
    restored = False
    async with call.pool.opening(session_id):
        held = call.pool.find(session_id)
        if held is None or held.ref.epoch != request.epoch:
            check_local_sources(state.manifest.entries, call.local_sources)
            resumed = await resume(
                call.provider,
                call.client,
                state,
                started=request.started,
                sandbox_id=request.sandbox_id,
            )
            restored = resumed.restored
            read_from_any_folder(resumed.session)
            held = OpenSession(
                session=resumed.session,
                ref=m.SessionRef(session_id=session_id, epoch=request.epoch),
            )
            call.pool.add(held)
        if request.settings is not None:
            configure(held.session, request.settings)
    return _opened(call, held, request.state, restored=restored)


def _opened(
    call: Call, held: OpenSession, known: JsonObject, *, restored: bool = False
) -> m.SessionOpened:
    return m.SessionOpened(
        session=held.ref,
        state_delta=state_delta(known, dump_state(held.session.state)),
        supports_pty=held.session.supports_pty(),
        sandbox_id=sandbox_identity(call.provider, held.session.state),
        worker_queue=call.worker_queue,
        host_bound=call.provider.host_bound,
        restored=restored,
    )


@_handles(ops.DELETE_SESSION)
async def _delete_session(call: Call, request: m.DeleteSession) -> m.StateChanged:
    held = call.pool.find(request.session.session_id)
    if held is not None:
        await _delete_held(call, held.session)
        call.pool.remove(request.session.session_id)
        return m.StateChanged()
    if request.state is None:
        raise SessionNotOpen(f"session {request.session.session_id} is not open here")
    state = load_state(request.state)
    sandbox_id = sandbox_identity(call.provider, state)
    if sandbox_id is not None and isinstance(call.provider, SupportsDestroy):
        await call.provider.destroy(call.client, sandbox_id)
    else:
        await call.client.delete(await call.client.resume(state))
    return m.StateChanged()


async def _delete_held(call: Call, session: SandboxSession) -> None:
    provider = call.provider
    # Elsewhere than on this host, everything that runs in a sandbox ends with it.
    forgotten = not provider.host_bound or await processes.forget(session, durable=_durable(call))
    await call.client.delete(session)
    if not forgotten and isinstance(provider, SupportsDestroy):
        sandbox_id = sandbox_identity(provider, session.state)
        if sandbox_id is not None:
            await provider.destroy(call.client, sandbox_id)


@_handles(ops.START)
async def _start(call: Call, request: m.Start) -> m.StateChanged:
    async def start(session: SandboxSession) -> None:
        check_local_sources(session.state.manifest.entries, call.local_sources)
        await (restart(session) if request.started else session.start())

    return await _changing(call, request, start)


@_handles(ops.STOP)
async def _stop(call: Call, request: m.Stop) -> m.StateChanged:
    async def stop(session: SandboxSession) -> None:
        # The SDK's sessions end theirs before they save the workspace.
        await processes.terminate_all(session, durable=_durable(call))
        await session.stop()

    return await _changing(call, request, stop)


@_handles(ops.SHUTDOWN)
async def _shutdown(call: Call, request: m.Shutdown) -> m.StateChanged:
    return await _changing(call, request, SandboxSession.shutdown)


async def _changing(
    call: Call,
    request: m.SessionRequest,
    change: Callable[[SandboxSession], Awaitable[None]],
) -> m.StateChanged:
    async with call.pool.use(request) as session:
        before = dump_state(session.state)
        await change(session)
        return m.StateChanged(
            state_delta=state_delta(before, dump_state(session.state)),
            sandbox_id=sandbox_identity(call.provider, session.state),
        )


@_handles(ops.RUNNING)
async def _running(call: Call, request: m.Running) -> m.RunningAnswer:
    async with call.pool.use(request) as session:
        return m.RunningAnswer(running=await session.running())


# --- Commands -----------------------------------------------------------------------------------


def _durable(call: Call) -> bool:
    return call.provider.durable_processes


@_handles(ops.EXEC)
async def _exec(call: Call, request: m.Exec) -> m.ExecResult:
    processes.announce(request, durable=_durable(call))
    async with call.pool.use(request) as session:
        result = await processes.run(session, request, durable=_durable(call))
    limit = current_limits().output
    return m.ExecResult(
        stdout=cut_output(result.stdout, limit),
        stderr=cut_output(result.stderr, limit),
        exit_code=result.exit_code,
    )


@_handles(ops.PTY_EXEC_START)
async def _pty_exec_start(call: Call, request: m.PtyExecStart) -> m.PtyUpdate:
    processes.announce(request, durable=_durable(call))
    async with call.pool.use(request) as session:
        update = await processes.start(session, request, durable=_durable(call))
    return _pty_update(update)


@_handles(ops.PTY_WRITE_STDIN)
async def _pty_write_stdin(call: Call, request: m.PtyWriteStdin) -> m.PtyUpdate:
    processes.announce(request, durable=_durable(call))
    async with call.pool.use(request) as session:
        update = await processes.write(session, request, durable=_durable(call))
    return _pty_update(update)


def _pty_update(update: PtyExecUpdate) -> m.PtyUpdate:
    return m.PtyUpdate(
        process_id=update.process_id,
        output=update.output,
        exit_code=update.exit_code,
        original_token_count=update.original_token_count,
    )


@_handles(ops.PTY_TERMINATE_ALL)
async def _pty_terminate_all(call: Call, request: m.PtyTerminateAll) -> None:
    async with call.pool.use(request) as session:
        await processes.terminate_all(session, durable=_durable(call))
        await session.pty_terminate_all()


# --- Files --------------------------------------------------------------------------------------


@_handles(ops.READ)
async def _read(call: Call, request: m.Read) -> bytes:
    async with call.pool.use(request) as session:
        return _content(await session.read(Path(request.path), user=request.user))


@_handles(ops.WRITE)
async def _write(call: Call, request: m.Write) -> None:
    async with call.pool.use(request) as session:
        await session.write(Path(request.path), io.BytesIO(call.body), user=request.user)


@_handles(ops.LS)
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


@_handles(ops.MKDIR)
async def _mkdir(call: Call, request: m.Mkdir) -> None:
    async with call.pool.use(request) as session:
        await session.mkdir(request.path, parents=request.parents, user=request.user)


@_handles(ops.RM)
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


@_handles(ops.EXTRACT)
async def _extract(call: Call, request: m.Extract) -> None:
    limits = request.archive_limits
    async with call.pool.use(request) as session:
        await session.extract(
            request.path,
            io.BytesIO(call.body),
            compression_scheme=cast("Literal['tar', 'zip'] | None", request.compression_scheme),
            archive_limits=None if limits is None else SandboxArchiveLimits(**limits.model_dump()),
        )


@_handles(ops.VALIDATE_PATH_ACCESS)
async def _validate_path_access(call: Call, request: m.ValidatePath) -> m.ValidPath:
    async with call.pool.use(request) as session:
        path = await session._validate_path_access(request.path, for_write=request.for_write)
    return m.ValidPath(path=sandbox_path_str(path))


@_handles(ops.APPLY_PATCH)
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


@_handles(ops.APPLY_MANIFEST)
async def _apply_manifest(call: Call, request: m.ApplyManifest) -> m.Materialized:
    async with call.pool.use(request) as session:
        check_local_sources(session.state.manifest.entries, call.local_sources)
        done = await session.apply_manifest(only_ephemeral=request.only_ephemeral)
    return m.Materialized(
        files=tuple(m.WrittenFile(path=str(f.path), sha256=f.sha256) for f in done.files)
    )


@_handles(ops.APPLY_ENTRIES)
async def _apply_entries(call: Call, request: m.ApplyEntries) -> m.Materialized:
    entries = [(Path(placed.path), load_entry(placed.entry)) for placed in request.entries]
    check_local_sources(dict(entries), call.local_sources)
    async with call.pool.use(request) as session:
        files = await session._apply_entry_batch(entries, base_dir=session._manifest_base_dir())
    return m.Materialized(
        files=tuple(m.WrittenFile(path=str(f.path), sha256=f.sha256) for f in files)
    )


@_handles(ops.PERSIST_WORKSPACE)
async def _persist_workspace(call: Call, request: m.PersistWorkspace) -> bytes:
    async with call.pool.use(request) as session:
        return _content(await session.persist_workspace())


@_handles(ops.HYDRATE_WORKSPACE)
async def _hydrate_workspace(call: Call, request: m.HydrateWorkspace) -> None:
    async with call.pool.use(request) as session:
        await session.hydrate_workspace(io.BytesIO(call.body))


@_handles(ops.RESOLVE_EXPOSED_PORT)
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
