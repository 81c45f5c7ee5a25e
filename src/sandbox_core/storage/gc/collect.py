"""Determines which stored objects are no longer needed, and deletes them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Literal

from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.client import Client

from sandbox_core.errors import StorageError
from sandbox_core.storage.gc.references import References, each, find_references
from sandbox_core.storage.object_store import ObjectStore, StoredObject
from sandbox_core.storage.payload_driver import PAYLOAD_PREFIX, REWRITE_AFTER
from sandbox_core.storage.snapshots import SNAPSHOT_PREFIX

MIN_AGE = 2 * REWRITE_AFTER
"""Younger objects are always kept.

Storing the content of an object older than `REWRITE_AFTER` writes it again. So the content of an
object of this age was not stored for at least half that time, and any reference to it has been on
the server for as long. That half also bounds the skew of clocks, the lag of the server's lists, and
the duration of a collection.
"""

_PAYLOAD_KEY = re.compile(rf"{PAYLOAD_PREFIX}/([0-9a-f]{{64}})")
# The ids of saves have this form and, before each save had its own, the ids of sessions. Any other
# id is a name that somebody chose: workflow code may contain it, which no history shows.
_SNAPSHOT_KEY = re.compile(
    rf"{SNAPSHOT_PREFIX}/([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})"
)

_AT_ONCE = 16
# Few, so that an object is deleted soon after it was last checked.
_DELETED_AT_ONCE = 100
_LARGE_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The objects of one kind, by whether they can be deleted, and if not, why."""

    unneeded: Sequence[StoredObject]
    needed: Sequence[StoredObject]
    young: Sequence[StoredObject]
    """Unneeded as far as known, but written at or after `before`."""
    foreign: Sequence[StoredObject]
    """Objects whose names do not have the form of the SDK's or the payload driver's."""
    before: datetime


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome for an unneeded object; `detail` says why it could not be deleted."""

    stored: StoredObject
    result: Literal["deleted", "rewritten", "failed"]
    detail: str = ""


async def find_unneeded(
    store: ObjectStore,
    clients: Iterable[Client],
    *,
    now: datetime,
    older_than: timedelta,
    snapshots_older_than: timedelta | None,
) -> tuple[Folder, Folder]:
    """Return the payloads and the snapshots, sorted by whether the server refers to them.

    A state kept outside Temporal can also refer to a snapshot. So snapshots count as unneeded only
    if the caller gives the age at which such states are no longer used.

    Raises:
        StorageError: It cannot be determined what is needed.
        RPCError: The server does not answer, or refuses.
    """
    for age in (older_than, snapshots_older_than):
        if age is not None and age < MIN_AGE:
            raise StorageError(
                f"objects that are younger than {MIN_AGE // timedelta(hours=1)} hours are always "
                f"kept, because they may come into use: choose a longer time."
            )
    # Before the server is asked: whatever begins later makes the objects that it needs young.
    all_payloads = [found async for found in store.list(PAYLOAD_PREFIX)]
    all_snapshots = [found async for found in store.list(SNAPSHOT_PREFIX)]
    references = await find_references(clients)

    never = datetime.min.replace(tzinfo=timezone.utc)
    before = never if snapshots_older_than is None else now - snapshots_older_than

    def sort() -> tuple[Folder, Folder]:
        return (
            _sort(all_payloads, _PAYLOAD_KEY, references.digests, now - older_than),
            _sort(all_snapshots, _SNAPSHOT_KEY, references.snapshot_ids, before),
        )

    payloads, snapshots = sort()
    _check_place(store, payloads, snapshots)
    if not snapshots.unneeded:
        return payloads, snapshots
    await _read_payloads(store, payloads.needed, references)
    _check_readable(references)
    return sort()


async def delete_unneeded(store: ObjectStore, folder: Folder) -> AsyncIterator[Outcome]:
    """Delete the unneeded objects that were not written again; yield each outcome.

    Raises:
        StorageError: The store does not answer. Outcomes yielded before are final.
    """
    for start in range(0, len(folder.unneeded), _DELETED_AT_ONCE):
        batch = folder.unneeded[start : start + _DELETED_AT_ONCE]
        rewritten, doomed = await _look_again(store, batch, folder.before)
        for stored in rewritten:
            yield Outcome(stored=stored, result="rewritten")
        for outcome in await _delete(store, doomed):
            yield outcome


async def _look_again(
    store: ObjectStore, batch: Sequence[StoredObject], before: datetime
) -> tuple[list[StoredObject], list[StoredObject]]:
    """Return the objects that were written again since they were listed, and the others."""
    rewritten: list[StoredObject] = []
    doomed: list[StoredObject] = []

    async def look(stored: StoredObject) -> None:
        now = await store.head(stored.key)
        if now is not None:
            (doomed if now.modified < before else rewritten).append(stored)

    await each(batch, look, at_once=_AT_ONCE)
    return rewritten, doomed


async def _delete(store: ObjectStore, doomed: Sequence[StoredObject]) -> list[Outcome]:
    try:
        await store.delete([stored.key for stored in doomed])
    except StorageError:
        outcomes: list[Outcome] = []

        async def delete_one(stored: StoredObject) -> None:
            try:
                await store.delete([stored.key])
            except StorageError as error:
                outcomes.append(Outcome(stored=stored, result="failed", detail=error.message))
            else:
                outcomes.append(Outcome(stored=stored, result="deleted"))

        await each(doomed, delete_one, at_once=_AT_ONCE)
        return outcomes
    return [Outcome(stored=stored, result="deleted") for stored in doomed]


def _sort(
    objects: Sequence[StoredObject],
    key: re.Pattern[str],
    referenced: AbstractSet[str],
    before: datetime,
) -> Folder:
    unneeded: list[StoredObject] = []
    needed: list[StoredObject] = []
    young: list[StoredObject] = []
    foreign: list[StoredObject] = []
    for stored in objects:
        name = key.fullmatch(stored.key)
        if name is None:
            foreign.append(stored)
        elif name[1] in referenced:
            needed.append(stored)
        elif stored.modified < before:
            unneeded.append(stored)
        else:
            young.append(stored)
    return Folder(unneeded=unneeded, needed=needed, young=young, foreign=foreign, before=before)


def _check_place(store: ObjectStore, *folders: Folder) -> None:
    """Refuse if the server and namespace that were asked may not be those that use the store."""
    if any(folder.unneeded for folder in folders) and not any(folder.needed for folder in folders):
        raise StorageError(
            f"storage {store.url}: nothing in these namespaces refers to any of its objects, so "
            f"these may not be the namespaces that use it. Check the address and the namespaces; "
            f"if a proxy encrypts payloads, connect through it. If the objects are really unused, "
            f"delete the whole storage."
        )


async def _read_payloads(
    store: ObjectStore, payloads: Sequence[StoredObject], references: References
) -> None:
    """Add the references in stored payloads: session states in them name snapshots."""

    async def read(stored: StoredObject) -> None:
        try:
            payload = Payload.FromString(await store.get(stored.key))
        except DecodeError as error:
            raise StorageError(
                f"storage {store.url}: {stored.key} is not a payload, so the snapshots that it "
                f"needs are unknown. Nothing was deleted."
            ) from error
        references.add(payload, f"storage {store.url}: {stored.key}")

    small = [stored for stored in payloads if stored.size < _LARGE_BYTES]
    large = [stored for stored in payloads if stored.size >= _LARGE_BYTES]
    await each(small, read, at_once=_AT_ONCE)
    await each(large, read, at_once=1)


def _check_readable(references: References) -> None:
    if references.unreadable:
        raise StorageError(
            f"there are payloads whose encoding ({', '.join(sorted(references.unreadable))}) only "
            f"your own codec can decode, so the snapshots that they need are unknown. Nothing was "
            f"deleted. Payloads can be collected without --snapshots-older-than."
        )
