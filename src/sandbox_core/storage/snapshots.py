"""Moves workspace snapshots directly between activities and the object store.

A snapshot is never overwritten: every save of a workspace is a new object, which the session's
state then names. So a session created from another one's snapshot cannot damage it, and an older
state can still be resumed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshot

from sandbox_core.errors import StorageError
from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.storage.object_store import ObjectStore
from sandbox_core.wire.snapshot_ids import saved_id

SNAPSHOT_PREFIX = "snapshots"
"""The folder of the store that holds snapshots, each under its id."""

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")


class SnapshotStore:
    """The client that the SDK's `RemoteSnapshot` calls. Every method raises `StorageError`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @property
    def url(self) -> str:
        """The URL of the store, without credentials."""
        return self._store.url

    async def upload(self, snapshot_id: str, stream: io.IOBase) -> None:
        """Write a snapshot atomically."""
        await self._store.upload(self._key(snapshot_id), stream)

    async def download(self, snapshot_id: str) -> io.IOBase:
        """Return a snapshot as a temporary file."""
        return cast("io.IOBase", await self._store.download(self._key(snapshot_id)))

    async def exists(self, snapshot_id: str) -> bool:
        """Return whether a snapshot with this id exists."""
        return await self._store.head(self._key(snapshot_id)) is not None

    def _key(self, snapshot_id: str) -> str:
        if not _ID.fullmatch(snapshot_id):
            raise StorageError(
                f"storage {self._store.url}: {snapshot_id!r} is not a snapshot id. Use letters, "
                f"digits, '.', '_' and '-', and do not start with '.' or '-'."
            )
        return f"{SNAPSHOT_PREFIX}/{snapshot_id}"


@contextmanager
def saved_anew(session: SandboxSession, save: str) -> Iterator[None]:
    """Give a save of the session within this context a new snapshot, which its state then names.

    If the save fails, the state names the previous snapshot.

    Args:
        session: A live session.
        save: A unique name of this save.
    """
    before = session.state.snapshot
    if not isinstance(before, NoopSnapshot):
        session.state.snapshot = before.model_copy(update={"id": saved_id(save)})
    try:
        yield
    except BaseException:
        session.state.snapshot = before
        raise


def offer_snapshots(
    client: BaseSandboxClient[BaseSandboxClientOptions | None], snapshots: SnapshotStore
) -> None:
    """Add `snapshots` to the dependencies of the sessions of `client`.

    A client with its own snapshot store under the same key keeps it.
    """
    # A copy: the provider may share its dependencies among clients.
    known = client._dependencies
    dependencies = Dependencies() if known is None else known.clone()
    if SNAPSHOT_DEPENDENCY not in dependencies._bindings:
        dependencies.bind_value(SNAPSHOT_DEPENDENCY, snapshots)
    client._dependencies = dependencies
