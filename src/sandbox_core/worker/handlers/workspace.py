"""The handlers of the operations on the workspace as a whole."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from agents.sandbox.materialization import MaterializedFile

from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import load_entry
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.registry import handles, handles_bytes
from sandbox_core.worker.handlers.streams import content_of
from sandbox_core.worker.local_sources import check_local_sources
from sandbox_core.worker.sdk_session import apply_entries
from sandbox_core.worker.secrets import entry_with_credentials


@handles(ops.APPLY_MANIFEST)
async def _apply_manifest(call: Call, request: m.ApplyManifestRequest) -> m.MaterializationResponse:
    async with call.pool.use(request) as session:
        check_local_sources(session.state.manifest.entries, call.local_sources)
        done = await session.apply_manifest(only_ephemeral=request.only_ephemeral)
    return _response(done.files)


@handles(ops.APPLY_ENTRIES)
async def _apply_entries(call: Call, request: m.ApplyEntriesRequest) -> m.MaterializationResponse:
    entries = [(Path(placed.path), load_entry(placed.entry)) for placed in request.entries]
    check_local_sources(dict(entries), call.local_sources)
    entries = [(path, entry_with_credentials(entry)) for path, entry in entries]
    async with call.pool.use(request) as session:
        files = await apply_entries(session, entries)
    return _response(files)


def _response(files: Sequence[MaterializedFile]) -> m.MaterializationResponse:
    return m.MaterializationResponse(
        files=tuple(m.WrittenFile(path=str(f.path), sha256=f.sha256) for f in files)
    )


@handles(ops.PERSIST_WORKSPACE)
async def _persist_workspace(call: Call, request: m.PersistWorkspaceRequest) -> bytes:
    async with call.pool.use(request) as session:
        return await content_of(await session.persist_workspace())


@handles_bytes(ops.HYDRATE_WORKSPACE)
async def _hydrate_workspace(call: Call, request: m.HydrateWorkspaceRequest, body: bytes) -> None:
    async with call.pool.use(request) as session:
        await session.hydrate_workspace(io.BytesIO(body))


@handles(ops.RESOLVE_EXPOSED_PORT)
async def _resolve_exposed_port(
    call: Call, request: m.ResolveExposedPortRequest
) -> m.ResolveExposedPortResponse:
    async with call.pool.use(request) as session:
        endpoint = await session.resolve_exposed_port(request.port)
    return m.ResolveExposedPortResponse(
        host=endpoint.host, port=endpoint.port, tls=endpoint.tls, query=endpoint.query
    )
