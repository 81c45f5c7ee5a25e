"""The handlers of the operations that open, change and close sessions."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial

from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import LocalSnapshot
from temporalio import activity

from sandbox_core.errors import CreateConflict, InvalidOptions, SessionNotOpen
from sandbox_core.providers import SupportsDestroy
from sandbox_core.providers.registry import Provider
from sandbox_core.storage.snapshots import saved_anew
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import (
    JsonObject,
    dump_state,
    load_manifest,
    load_options,
    load_snapshot,
    load_state,
    state_delta,
)
from sandbox_core.worker.call import Call
from sandbox_core.worker.commands import processes
from sandbox_core.worker.handlers.registry import handles
from sandbox_core.worker.local_sources import check_local_sources, read_from_any_folder
from sandbox_core.worker.own_queue import is_gone
from sandbox_core.worker.secrets import current_secrets, with_credentials
from sandbox_core.worker.sessions.creation import (
    claim,
    destroy_created,
    finds_earlier_attempts,
    keys_made,
    make,
)
from sandbox_core.worker.sessions.labels import digest
from sandbox_core.worker.sessions.pool import Client, OpenSession, configure
from sandbox_core.worker.sessions.resume import Opened, exists, restart, resume, sandbox_identity

logger = logging.getLogger(__name__)


@handles(ops.CREATE_SESSION)
async def _create_session(call: Call, request: m.CreateSessionRequest) -> m.OpenSessionResponse:
    # An earlier attempt that hangs here must not hold up the next one, if that can do without it.
    alone = nullcontext() if finds_earlier_attempts(call) else call.pool.opening(request.create_key)
    async with alone:
        held = call.pool.created(request.create_key)
        if held is None:
            held = await _create(call, request)
            call.pool.add(held)
        elif held.created_by != digest(request):
            raise CreateConflict.of_key(request.create_key)
    known: JsonObject = {} if request.manifest is None else {"manifest": request.manifest}
    return _opened(call, held, known)


async def _create(call: Call, request: m.CreateSessionRequest) -> OpenSession:
    manifest = None if request.manifest is None else load_manifest(request.manifest)
    if manifest is not None:
        check_local_sources(manifest.entries, call.local_sources)
        manifest = with_credentials(manifest)
        await current_secrets().learn(manifest)
    snapshot = None if request.snapshot is None else load_snapshot(request.snapshot)
    options = _options(call.provider, request.options)

    async def create(client: Client) -> Opened:
        created = await client.create(manifest=manifest, snapshot=snapshot, options=options)
        return Opened(session=created)

    async with call.capacity.reserved(
        call.provider.name, request.create_key, partial(keys_made, call)
    ):
        session = (await make(call, request, create)).session
    read_from_any_folder(session)
    if call.fleet and isinstance(session.state.snapshot, LocalSnapshot):
        logger.warning(
            "session %s saves its workspace to %s of host %s, where workers on other hosts do not "
            "find it. Name no snapshot in the workflow: the workspace then goes to the storage",
            session.state.session_id,
            session.state.snapshot.base_path,
            socket.gethostname(),
        )
    return OpenSession(
        session=session,
        ref=m.SessionRef(session_id=str(session.state.session_id), epoch=request.epoch),
        create_key=request.create_key,
        created_by=digest(request),
    )


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


@handles(ops.RESUME_SESSION)
async def _resume_session(call: Call, request: m.ResumeSessionRequest) -> m.OpenSessionResponse:
    state = load_state(request.state)
    session_id = str(state.session_id)
    if request.held_by is not None and _is_held(call, session_id, request.held_by):
        raise SessionNotOpen(f"session {session_id} is held by the worker of {request.held_by}")
    async with call.pool.opening(session_id):
        held = call.pool.find(session_id)
        if held is not None and held.ref.epoch > request.epoch:
            raise SessionNotOpen(f"session {session_id} has been resumed again since")
        if held is None or held.ref.epoch != request.epoch:
            opened = await _resume(call, request, state)
            held = OpenSession(
                session=opened.session,
                ref=m.SessionRef(session_id=session_id, epoch=request.epoch),
                restored=opened.restored,
                started=opened.started,
            )
            call.pool.add(held)
        if request.settings is not None:
            configure(held.session, request.settings)
    return _opened(call, held, request.state)


def _is_held(call: Call, session_id: str, held_by: str) -> bool:
    if call.worker_queue == held_by:
        return call.pool.find(session_id) is not None
    return not is_gone(activity.info().namespace, held_by)


async def _resume(
    call: Call, request: m.ResumeSessionRequest, state: SandboxSessionState
) -> Opened:
    check_local_sources(state.manifest.entries, call.local_sources)
    state.manifest = with_credentials(state.manifest)
    await current_secrets().learn(state.manifest)
    known = request.sandbox_id or sandbox_identity(call.provider, state)

    async def attach(client: Client) -> Opened:
        return await resume(
            call.provider, client, state, started=request.started, sandbox_id=request.sandbox_id
        )

    opened = await make(call, request, attach, known=known)
    if request.sandbox_id is None:
        # The workflow has the session from elsewhere: it owns the sandbox from now on.
        await claim(call, sandbox_identity(call.provider, opened.session.state))
    read_from_any_folder(opened.session)
    return opened


def _opened(call: Call, held: OpenSession, known: JsonObject) -> m.OpenSessionResponse:
    return m.OpenSessionResponse(
        session=held.ref,
        state_delta=state_delta(known, dump_state(held.session.state)),
        supports_pty=held.session.supports_pty(),
        sandbox_id=sandbox_identity(call.provider, held.session.state),
        worker_queue=call.worker_queue,
        host_bound=call.provider.host_bound,
        restored=held.restored,
        started=held.started,
    )


@handles(ops.DELETE_SESSION)
async def _delete_session(call: Call, request: m.DeleteSessionRequest) -> m.StateResponse:
    if request.create_key is not None:
        await _delete_created(call, request.create_key)
        return m.StateResponse()
    held = call.pool.find(request.session.session_id)
    # One of another epoch may have another sandbox than the workflow knows.
    if held is not None and held.ref == request.session:
        await _delete_held(call, held)
        return m.StateResponse()
    if held is not None and held.ref.epoch < request.session.epoch:
        call.pool.remove(request.session.session_id)
    if request.state is None:
        raise SessionNotOpen(f"session {request.session.session_id} is not open here")
    state = load_state(request.state)
    sandbox_id = sandbox_identity(call.provider, state)
    if sandbox_id is not None and isinstance(call.provider, SupportsDestroy):
        await call.provider.destroy(call.client, sandbox_id)
    else:
        state.manifest = with_credentials(state.manifest)
        await call.client.delete(await call.client.resume(state))
    return m.StateResponse()


async def _delete_created(call: Call, create_key: str) -> None:
    held = call.pool.created(create_key)
    if held is not None:
        await _delete_held(call, held)
    await destroy_created(call, create_key)


async def _delete_held(call: Call, held: OpenSession) -> None:
    provider, session = call.provider, held.session
    await call.pool.interrupt(held)
    # Elsewhere than on this host, everything that runs in a sandbox ends with it.
    forgotten = not provider.host_bound or await processes.forget(session, durable=call.durable)
    await call.client.delete(session)
    if not forgotten and isinstance(provider, SupportsDestroy):
        sandbox_id = sandbox_identity(provider, session.state)
        if sandbox_id is not None:
            await provider.destroy(call.client, sandbox_id)
    call.pool.remove(held.ref.session_id)


@handles(ops.START)
async def _start(call: Call, request: m.StartRequest) -> m.StateResponse:
    async def start(session: SandboxSession) -> None:
        check_local_sources(session.state.manifest.entries, call.local_sources)
        # Some backends would make it again, empty.
        if request.started and await exists(call.provider, call.client, session.state) is False:
            call.pool.remove(request.session.session_id)
            raise SessionNotOpen("the sandbox does not exist any more")
        await (restart(session) if request.started else session.start())

    return await _changing(call, request, start)


@handles(ops.STOP)
async def _stop(call: Call, request: m.StopRequest) -> m.StateResponse:
    async def stop(session: SandboxSession) -> None:
        # The SDK's sessions end theirs before they save the workspace.
        await processes.terminate_all(session, durable=call.durable)
        info = activity.info()
        # An attempt that was given up may still write.
        save = f"{info.workflow_run_id}/{info.activity_id}/{info.attempt}"
        with saved_anew(session, save):
            await session.stop()

    return await _changing(call, request, stop)


@handles(ops.SHUTDOWN)
async def _shutdown(call: Call, request: m.ShutdownRequest) -> m.StateResponse:
    return await _changing(call, request, SandboxSession.shutdown)


async def _changing(
    call: Call,
    request: m.SessionRequest,
    change: Callable[[SandboxSession], Awaitable[None]],
) -> m.StateResponse:
    async with call.pool.use(request) as session:
        before = dump_state(session.state)
        await change(session)
        return m.StateResponse(
            state_delta=state_delta(before, dump_state(session.state)),
            sandbox_id=sandbox_identity(call.provider, session.state),
        )


@handles(ops.RUNNING)
async def _running(call: Call, request: m.RunningRequest) -> m.RunningResponse:
    async with call.pool.use(request) as session:
        return m.RunningResponse(running=await session.running())


@handles(ops.PING)
async def _ping(call: Call, request: m.PingRequest) -> None:
    """Answer: that is all there is to it."""
