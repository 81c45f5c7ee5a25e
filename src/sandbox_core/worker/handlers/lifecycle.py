"""The handlers of the operations that open, change and close sessions."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial

from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import LocalSnapshot, SnapshotBase
from temporalio import activity

from sandbox_core.errors import CreateConflict, InvalidOptions, SandboxCoreError, SessionNotOpen
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
    options_class,
    state_delta,
)
from sandbox_core.worker.call import Call
from sandbox_core.worker.commands import between_polls, closing
from sandbox_core.worker.handlers.registry import handles
from sandbox_core.worker.local_sources import check_local_sources
from sandbox_core.worker.own_queue import is_gone
from sandbox_core.worker.sdk_session import client_dependencies, configure, read_from_any_folder
from sandbox_core.worker.secrets import current_secrets, with_credentials
from sandbox_core.worker.sessions.archives import keep_whole
from sandbox_core.worker.sessions.creation import (
    claim,
    destroy_created,
    destroy_others,
    finds_earlier_attempts,
    keys_made,
    make,
    retried_key,
)
from sandbox_core.worker.sessions.destroying import destroy
from sandbox_core.worker.sessions.labels import digest
from sandbox_core.worker.sessions.lost import workspace_lost
from sandbox_core.worker.sessions.pool import Client, OpenSession, User, UserKey
from sandbox_core.worker.sessions.portable import check_portable
from sandbox_core.worker.sessions.resume import (
    Opened,
    exists,
    passed_identity,
    restart,
    resume,
    sandbox_identity,
    start,
)
from sandbox_core.worker.sessions.saved import check_saved

logger = logging.getLogger(__name__)


@handles(ops.CREATE_SESSION)
async def _create_session(call: Call, request: m.CreateSessionRequest) -> m.OpenSessionResponse:
    # An attempt that hangs here must not block the next one, if that can find its sandbox.
    alone = nullcontext() if finds_earlier_attempts(call) else call.pool.opening(request.create_key)
    async with alone:
        held = call.pool.created(request.create_key)
        if held is None:
            held = await _create(call, request)
            call.pool.add(held)
        elif held.created_by != digest(request):
            raise CreateConflict.of_key(request.create_key)
    known: JsonObject = {} if request.manifest is None else {"manifest": request.manifest}
    (key,) = (key for key, user in held.users.items() if not user.joined)
    return _opened(call, request, held, key, known)


async def _create(call: Call, request: m.CreateSessionRequest) -> OpenSession:
    manifest = None if request.manifest is None else load_manifest(request.manifest)
    if manifest is not None:
        check_local_sources(manifest.entries, call.local_sources)
        manifest = with_credentials(manifest)
        await current_secrets().learn(manifest)
    snapshot = None if request.snapshot is None else load_snapshot(request.snapshot)
    options = _options(call.provider, request.options)

    async def create(client: Client) -> Opened:
        if isinstance(snapshot, SnapshotBase):
            await check_saved(snapshot, client_dependencies(client))
        created = await client.create(manifest=manifest, snapshot=snapshot, options=options)
        try:
            check_portable(call.provider.name, created.state)
        except SandboxCoreError:
            await client.delete(created)  # No workflow will have the state to delete it later.
            raise
        keep_whole(created)
        return Opened(session=created)

    async with call.capacity.reserved(
        call.provider.name, request.create_key, partial(keys_made, call)
    ):
        session = (await make(call, request, create)).session
    read_from_any_folder(session)
    if call.fleet and isinstance(session.state.snapshot, LocalSnapshot):
        logger.warning(
            "session %s saves its workspace to %s of host %s, where workers on other hosts cannot "
            "find it. Pass no snapshot in the workflow: the workspace then goes to the storage",
            session.state.session_id,
            session.state.snapshot.base_path,
            socket.gethostname(),
        )
    return OpenSession(
        session=session,
        session_id=str(session.state.session_id),
        users={_user_key(): User(epoch=request.epoch)},
        idempotency_key=request.create_key,
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
    # A subclass of the provider's options has its own type.
    given = options_class(data)
    if given is None or not issubclass(given, expected):
        expected_type = expected.model_fields["type"].default
        raise InvalidOptions(
            f"{takes} (type {expected_type!r}); it was given options of type {data.get('type')!r}."
        )
    return load_options(data)


@handles(ops.RESUME_SESSION)
async def _resume_session(call: Call, request: m.ResumeSessionRequest) -> m.OpenSessionResponse:
    state, key = load_state(request.state), _user_key(request.handle)
    session_id = str(state.session_id)
    if request.held_by is not None and _is_held(call, session_id, key, request.held_by):
        raise SessionNotOpen(f"session {session_id} is held by the worker of {request.held_by}")
    known = request.sandbox_id or passed_identity(call.provider, state)
    async with call.pool.opening(session_id):
        held = call.pool.find(session_id)
        if held is None or not _is_open_for(call, held, key, request, known):
            held = await _open_again(call, held, key, request, state, known)
            call.pool.add(held)
        elif key not in held.users:
            await current_secrets().learn(with_credentials(state.manifest))
            held.secrets |= current_secrets().values
            await _claim(call, held.session, request)
            restored = known is not None and known == held.replaces
            held.users[key] = User(epoch=request.epoch, joined=True, restored=restored)
        if request.settings is not None:
            configure(held.session, request.settings)
    return _opened(call, request, held, key, request.state)


def _user_key(handle: str | None = None) -> UserKey:
    """Return the key of `handle`, or of the one that the current activity opens."""
    if not activity.in_activity():
        return "", "", handle or ""
    info = activity.info()
    return info.workflow_id or "", info.workflow_run_id or "", handle or info.activity_id


def _is_held(call: Call, session_id: str, key: UserKey, held_by: str) -> bool:
    if call.worker_queue == held_by:
        held = call.pool.find(session_id)
        return held is not None and key in held.users
    return not is_gone(activity.info().namespace, held_by)


def _is_open_for(
    call: Call,
    held: OpenSession,
    key: UserKey,
    request: m.ResumeSessionRequest,
    known: str | None,
) -> bool:
    """Return whether the handle `key` has the session that is open here, or can join its users.

    Raises:
        SessionNotOpen: The handle has resumed the session again since.
    """
    user = held.users.get(key)
    if user is not None:
        if user.epoch > request.epoch:
            raise SessionNotOpen(f"session {held.session_id} was resumed again since")
        return user.epoch == request.epoch  # Otherwise it had the session elsewhere meanwhile.
    sandbox_id = sandbox_identity(call.provider, held.session.state)
    same = None in (known, sandbox_id) or known in (sandbox_id, held.replaces)
    return same and held.is_used and (held.is_ready or not request.started)


async def _open_again(
    call: Call,
    held: OpenSession | None,
    key: UserKey,
    request: m.ResumeSessionRequest,
    state: SandboxSessionState,
    known: str | None,
) -> OpenSession:
    """Open the session for the handle `key` and for those that have the same sandbox open here."""
    opened = await _resume(call, request, state, known)
    users = {key: User(epoch=request.epoch, restored=opened.restored)}
    sandbox_id = sandbox_identity(call.provider, opened.session.state)
    if held is not None and sandbox_identity(call.provider, held.session.state) == sandbox_id:
        users = {**held.users, **users}
    return OpenSession(
        session=opened.session,
        session_id=str(state.session_id),
        users=users,
        replaces=known if opened.restored else None,
        started=opened.started,
    )


async def _resume(
    call: Call, request: m.ResumeSessionRequest, state: SandboxSessionState, known: str | None
) -> Opened:
    check_local_sources(state.manifest.entries, call.local_sources)
    state.manifest = with_credentials(state.manifest)
    await current_secrets().learn(state.manifest)

    async def attach(client: Client) -> Opened:
        return await resume(
            call.provider,
            client,
            state,
            started=request.started,
            sandbox_id=request.sandbox_id,
            shut_down=request.shut_down,
        )

    opened = await make(call, request, attach, known=known)
    await _claim(call, opened.session, request)
    read_from_any_folder(opened.session)
    return opened


async def _claim(call: Call, session: SandboxSession, request: m.ResumeSessionRequest) -> None:
    if request.sandbox_id is None:
        # The workflow got the session's state from another one, and now owns the sandbox.
        await claim(call, sandbox_identity(call.provider, session.state), request.owner)


def _opened(
    call: Call,
    request: m.CreateSessionRequest | m.ResumeSessionRequest,
    held: OpenSession,
    key: UserKey,
    known: JsonObject,
) -> m.OpenSessionResponse:
    user, state = held.users[key], dump_state(held.session.state)
    if user.joined and not user.restored:
        # The other users' changes to their states are not this one's.
        state = {**known, "workspace_root_ready": held.is_ready}
    return m.OpenSessionResponse(
        session=m.SessionRef(session_id=held.session_id, epoch=user.epoch),
        state_delta=state_delta(known, state),
        supports_pty=held.session.supports_pty(),
        sandbox_id=sandbox_identity(call.provider, held.session.state),
        worker_queue=call.worker_queue,
        host_bound=call.provider.host_bound,
        restored=user.restored,
        started=held.is_ready if user.joined else held.started,
        handle=key[-1],
        generation=1,
        retried_key=retried_key(call, request),
    )


@handles(ops.DELETE_SESSION)
async def _delete_session(call: Call, request: m.DeleteSessionRequest) -> m.StateResponse:
    if request.create_key is not None:
        await _delete_created(call, request.create_key)
    else:
        sandbox_id = await _delete(call, request)
        await destroy_others(call, request.retried_keys, keep=sandbox_id)
    return m.StateResponse()


async def _delete(call: Call, request: m.DeleteSessionRequest) -> str | None:
    """Delete the session and return the id of its sandbox, which some options only pause."""
    held = call.pool.find(request.session.session_id)
    # A session open only for others may have another sandbox than the workflow knows.
    if held is not None and held.user(request.session) is not None:
        sandbox_id = sandbox_identity(call.provider, held.session.state)  # A delete may clear it.
        await _delete_held(call, held)
        return sandbox_id
    if request.state is None:
        raise SessionNotOpen(f"session {request.session.session_id} is not open here")
    state = load_state(request.state)
    sandbox_id = passed_identity(call.provider, state)
    if held is not None and sandbox_identity(call.provider, held.session.state) == sandbox_id:
        await call.pool.interrupt(held)
        call.pool.remove(held.session_id)
    if sandbox_id is not None and isinstance(call.provider, SupportsDestroy):
        await destroy(call.provider, call.client, sandbox_id)
    else:
        state.manifest = with_credentials(state.manifest)
        await call.client.delete(await call.client.resume(state))
    return sandbox_id


async def _delete_created(call: Call, idempotency_key: str) -> None:
    held = call.pool.created(idempotency_key)
    if held is not None:
        await _delete_held(call, held)
    await destroy_created(call, idempotency_key)


async def _delete_held(call: Call, held: OpenSession) -> None:
    provider, session = call.provider, held.session
    await call.pool.interrupt(held)
    # Unless it is on this host, a sandbox's processes end with it.
    forgotten = not provider.host_bound or await closing.forget(provider, session)
    await call.client.delete(session)
    if not forgotten and isinstance(provider, SupportsDestroy):
        sandbox_id = sandbox_identity(provider, session.state)
        if sandbox_id is not None:
            await destroy(provider, call.client, sandbox_id)
    call.pool.remove(held.session_id)


@handles(ops.START)
async def _start(call: Call, request: m.StartRequest) -> m.StateResponse:
    async def start_held(held: OpenSession, user: User) -> None:
        session, shared = held.session, held.is_shared_by(user)
        user.left = False
        started = request.started or (shared and held.is_ready)
        check_local_sources(session.state.manifest.entries, call.local_sources)
        # Some backends would create it again, empty.
        if started and await exists(call.provider, call.client, session.state) is False:
            call.pool.remove(held.session_id)
            raise SessionNotOpen("the sandbox no longer exists")
        if started and shared and await session.running():
            return  # Others are using the sandbox.
        await (restart(session) if started else start(call.provider, call.client, session))

    return await _changing(call, request, start_held, shut_down=True)


@handles(ops.STOP)
async def _stop(call: Call, request: m.StopRequest) -> m.StateResponse:
    async def stop(held: OpenSession, user: User) -> None:
        # As in the SDK's sessions, which end their processes before they save the workspace.
        if not (request.guest or held.is_shared_by(user)):
            await closing.terminate_all(call.provider, held.session, request.users)
        info = activity.info()
        # Each attempt writes its own object: one that was given up may still be writing.
        save = f"{info.workflow_run_id}/{info.activity_id}/{info.attempt}"
        try:
            with saved_anew(held.session, save):
                await held.session.stop()
        except SandboxError as error:
            lost = await workspace_lost(call.provider, held.session)
            if lost is None:
                raise
            raise lost from error

    return await _changing(call, request, stop)


@handles(ops.SHUTDOWN)
async def _shutdown(call: Call, request: m.ShutdownRequest) -> m.StateResponse:
    async def shutdown(held: OpenSession, user: User) -> None:
        user.left = True
        if not (request.guest or held.is_shared_by(user)):
            await between_polls.abandon(held.session)
            await held.session.shutdown()

    return await _changing(call, request, shutdown, shut_down=True)


async def _changing(
    call: Call,
    request: m.SessionRequest,
    change: Callable[[OpenSession, User], Awaitable[None]],
    *,
    shut_down: bool = False,
) -> m.StateResponse:
    async with call.pool.use(request, shut_down=shut_down) as session:
        held = call.pool.find(request.session.session_id)
        user = None if held is None else held.user(request.session)
        assert held is not None, "it is in use"
        assert user is not None, "it is in use"
        # One at a time: `restart` changes the state temporarily.
        async with held.changing:
            before = dump_state(session.state)
            await change(held, user)
            return m.StateResponse(
                state_delta=state_delta(before, dump_state(session.state)),
                sandbox_id=sandbox_identity(call.provider, session.state),
            )


@handles(ops.RUNNING)
async def _running(call: Call, request: m.RunningRequest) -> m.RunningResponse:
    async with call.pool.use(request, shut_down=True) as session:
        return m.RunningResponse(running=await session.running())


@handles(ops.PING)
async def _ping(call: Call, request: m.PingRequest) -> None:
    """Return, to show that this worker is alive."""
