"""Resumes sessions and makes their workspaces usable again."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass

from agents.sandbox.entries import Mount
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot

from sandbox_core.errors import InvalidRequest, SandboxLost
from sandbox_core.providers import SupportsExists, SupportsIdentity
from sandbox_core.providers.registry import Provider
from sandbox_core.wire.snapshot_ids import is_saved
from sandbox_core.worker.sdk_session import client_dependencies, entries_base_dir, keep_at_start
from sandbox_core.worker.sessions.archives import keep_whole
from sandbox_core.worker.sessions.pool import Client
from sandbox_core.worker.sessions.saved import check_saved, is_missing, missing


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A created or resumed session.

    `started`: its workspace is in use. `restored`: its workspace came from a snapshot.
    """

    session: SandboxSession
    started: bool = False
    restored: bool = False


async def resume(
    provider: Provider,
    client: Client,
    state: SandboxSessionState,
    *,
    started: bool,
    sandbox_id: str | None,
    shut_down: bool = False,
) -> Opened:
    """Open the session of `state`; if its workspace was in use, make it usable again.

    Raises:
        SandboxLost: The sandbox is gone; and the workspace was in use and has no snapshot, or the
            session was shut down.
        StorageError: The workspace was not in use, and its snapshot is missing.
    """
    # If a lookup fails, the SDK's clients return a new, empty sandbox.
    known = sandbox_id or sandbox_identity(provider, state)
    present = None
    if known is not None and isinstance(provider, SupportsExists):
        if started or shut_down or state.workspace_root_ready:
            present = await provider.exists(client, known)
        if shut_down and present is False:
            raise _shut_down(provider, known)
        # If the sandbox still exists, another session may have started the workspace: keep it.
        started = started or present is True
        if not present and started and not await _restorable(state, client_dependencies(client)):
            raise await _lost(provider, known, state, client_dependencies(client))
    if not started and (present is False or not state.workspace_root_ready):
        await check_saved(state.snapshot, client_dependencies(client))
    session = await client.resume(state)
    keep_whole(session)
    actual = sandbox_identity(provider, session.state)
    if shut_down and actual != known:
        await client.delete(session)
        raise _shut_down(provider, known)
    if not started:
        return Opened(session=session)
    if present is False or actual != known:
        if not await _restorable(session.state, session.dependencies):
            lost = await _lost(provider, known, session.state, session.dependencies)
            await client.delete(session)
            raise lost
        await session.start()
        return Opened(session=session, started=True, restored=True)
    await restart(session)
    return Opened(session=session, started=True)


async def start(provider: Provider, client: Client, session: SandboxSession) -> None:
    """Start a session whose workspace is not in use: restore its snapshot, or write the manifest.

    Raises:
        StorageError: The workspace's snapshot is missing, and its sandbox is gone.
    """
    state = session.state
    if await is_missing(state.snapshot, session.dependencies):
        if state.workspace_root_ready and await exists(provider, client, state):
            await restart(session)  # The workspace is there: no snapshot is needed.
            return
        await check_saved(state.snapshot, session.dependencies)
    await session.start()


async def restart(session: SandboxSession) -> None:
    """Start a session whose workspace is in use, without touching the workspace.

    The SDK's `start` would restore the last snapshot or write the manifest's files again, and
    overwrite later changes. So during `start` the session has no snapshot, and no manifest entries
    but mounts, which a restarted sandbox needs again. In a sandbox that was not restarted the
    mounts are replaced, because only mounting tells the SDK which credential files to keep out of
    snapshots.
    """
    await _unmount(session)
    keep_at_start(session)
    state = session.state
    snapshot, manifest = state.snapshot, state.manifest
    state.workspace_root_ready = True
    state.snapshot = NoopSnapshot(id=snapshot.id)
    mounts = {path: entry for path, entry in manifest.iter_entries() if isinstance(entry, Mount)}
    state.manifest = manifest.model_copy(update={"entries": mounts})
    try:
        await session.start()
    finally:
        session.state.snapshot, session.state.manifest = snapshot, manifest


async def _unmount(session: SandboxSession) -> None:
    for mount, path in session.state.manifest.mount_targets():
        # A sandbox that is not running has no mounts.
        with suppress(SandboxError):
            await mount.unmount(session, path, entries_base_dir(session))


def sandbox_identity(provider: Provider, state: SandboxSessionState) -> str | None:
    """Return the backend's id of the sandbox; None if the provider cannot tell."""
    return provider.identity(state) if isinstance(provider, SupportsIdentity) else None


def passed_identity(provider: Provider, state: SandboxSessionState) -> str | None:
    """Return the backend's id of the sandbox of a state that a workflow has passed.

    Raises:
        InvalidRequest: The state is another provider's.
    """
    try:
        return sandbox_identity(provider, state)
    except (AttributeError, InvalidRequest, TypeError) as error:
        raise InvalidRequest(
            f"a session state of type {state.type!r} cannot be used with provider "
            f"{provider.name!r}: pass it to the client of the provider that created the session."
        ) from error


async def exists(provider: Provider, client: Client, state: SandboxSessionState) -> bool | None:
    """Return whether the sandbox of `state` exists; None if the provider cannot tell.

    Raises:
        Exception: The backend did not answer, which does not mean that it is gone.
    """
    sandbox_id = sandbox_identity(provider, state)
    if sandbox_id is None or not isinstance(provider, SupportsExists):
        return None
    return await provider.exists(client, sandbox_id)


async def _restorable(state: SandboxSessionState, dependencies: Dependencies | None) -> bool:
    return await state.snapshot.restorable(dependencies=dependencies)


def on_host(provider: Provider) -> str:
    """Return " on host ..." if the provider's sandboxes live on this host, otherwise ""."""
    return f" on host {socket.gethostname()}" if provider.host_bound else ""


def _shut_down(provider: Provider, sandbox_id: str | None) -> SandboxLost:
    return SandboxLost(
        f"sandbox {sandbox_id} of provider {provider.name!r} no longer exists{on_host(provider)}: "
        f"its session was shut down. Start the session before you use it again."
    )


async def _lost(
    provider: Provider,
    sandbox_id: str | None,
    state: SandboxSessionState,
    dependencies: Dependencies | None,
) -> SandboxLost:
    lost = f"sandbox {sandbox_id} of provider {provider.name!r} no longer exists{on_host(provider)}"
    if is_saved(state.snapshot):
        return SandboxLost(f"{lost}, and {await missing(state.snapshot, dependencies)}")
    return SandboxLost(
        f"{lost}, and its workspace was never saved to a snapshot. Create a new session; to keep "
        f"a workspace beyond its sandbox, save it with session.stop()."
    )
