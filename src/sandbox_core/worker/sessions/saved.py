"""Checks that the snapshot of a saved workspace exists.

The Agents SDK starts a session with an empty workspace if it does not find the snapshot.
"""

from __future__ import annotations

import socket

from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.snapshot import LocalSnapshot, RemoteSnapshot, SnapshotBase

from sandbox_core.errors import StorageError
from sandbox_core.storage.snapshots import SnapshotStore
from sandbox_core.wire.snapshot_ids import is_saved


async def check_saved(snapshot: SnapshotBase, dependencies: Dependencies | None) -> None:
    """Check that `snapshot` exists if a workspace was saved to it.

    Raises:
        StorageError: It does not exist.
    """
    if await is_missing(snapshot, dependencies):
        raise StorageError(
            f"{await missing(snapshot, dependencies)} Without it the workspace would be empty, so "
            f"no session is started: to start afresh, create one without this snapshot."
        )


async def is_missing(snapshot: SnapshotBase, dependencies: Dependencies | None) -> bool:
    """Return whether a workspace was saved to `snapshot` but the snapshot does not exist."""
    return is_saved(snapshot) and not await snapshot.restorable(dependencies=dependencies)


async def missing(snapshot: SnapshotBase, dependencies: Dependencies | None) -> str:
    """Return text that says where `snapshot` is missing and what to check."""
    return (
        f"{await _place(snapshot, dependencies)}: snapshot {snapshot.id} is missing. Check that "
        f"every worker uses the same storage, and that the object was not deleted or renamed."
    )


async def _place(snapshot: SnapshotBase, dependencies: Dependencies | None) -> str:
    if isinstance(snapshot, LocalSnapshot):
        return f"folder {snapshot.base_path} on host {socket.gethostname()}"
    if isinstance(snapshot, RemoteSnapshot):
        key = snapshot.client_dependency_key
        store = await dependencies.require(key) if dependencies is not None else None
        return f"storage {store.url if isinstance(store, SnapshotStore) else repr(key)}"
    return f"storage of {snapshot.type!r} snapshots"
