"""The driver through which Temporal's SDK keeps large payloads in the object store."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from sandbox_core.errors import StorageError
from sandbox_core.storage.object_store import ObjectStore
from sandbox_core.storage.outage import Outage
from sandbox_core.wire.limits import MAX_PAYLOAD_BYTES

PAYLOAD_PREFIX = "payloads"
"""The folder of the store that holds payloads, each under its SHA-256."""

DRIVER_NAME = "sandbox-core"
"""Recorded in every reference in every history: it never changes."""

THRESHOLD_BYTES = 128 * 1024
"""Payloads of at least this size go to a store that was configured."""

DEFAULT_STORE_THRESHOLD_BYTES = MAX_PAYLOAD_BYTES // 2
"""Payloads of at least this size go to the default directory: those that Temporal may refuse, as a
request has two. Others stay where every host can read them."""

REWRITE_AFTER = timedelta(hours=12)
"""An object of this age is written again when its content is stored again, so that it is young.
What collects unneeded objects relies on it: whatever is much older was not stored lately."""

_CLAIM_KEY = "sha256"


class PayloadDriver(StorageDriver):
    """Stores payloads by their content, as they are after any conversion and encryption."""

    def __init__(self, store: ObjectStore, outage: Outage) -> None:
        self._store = store
        self._outage = outage

    def name(self) -> str:
        """Return the name in the references."""
        return DRIVER_NAME

    def type(self) -> str:
        """Return the name of this kind of driver."""
        return "sandbox-core.object-store"

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        """Write payloads that are not there yet, and return their references.

        Raises:
            StorageError: The store did not take one of them.
        """
        return [await self._outage.watch(self._put(payload)) for payload in payloads]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Return the payloads of references.

        Raises:
            StorageError: One of them cannot be read, is not there, or is damaged.
        """
        return [await self._outage.watch(self._get(claim)) for claim in claims]

    async def _put(self, payload: Payload) -> StorageDriverClaim:
        content = payload.SerializeToString(deterministic=True)
        digest = await _sha256(content)
        key = f"{PAYLOAD_PREFIX}/{digest}"
        known = await self._store.head(key)
        # An old object may be about to be collected; written again, it is young.
        if known is None or known.modified < datetime.now(timezone.utc) - REWRITE_AFTER:
            await self._store.put(key, content)
        return StorageDriverClaim(claim_data={_CLAIM_KEY: digest})

    async def _get(self, claim: StorageDriverClaim) -> Payload:
        digest = claim.claim_data[_CLAIM_KEY]
        key = f"{PAYLOAD_PREFIX}/{digest}"
        content = await self._store.get(key)
        if await _sha256(content) != digest:
            raise StorageError(
                f"storage {self._store.url}: {key} is not what was written there: its SHA-256 is "
                f"another. Restore the object from a backup."
            )
        return Payload.FromString(content)


def with_storage(converter: DataConverter, driver: PayloadDriver, threshold: int) -> DataConverter:
    """Return `converter` with large payloads going to `driver`, unless it has storage already."""
    if converter.external_storage is not None:
        return converter
    return dataclasses.replace(
        converter,
        external_storage=ExternalStorage(drivers=[driver], payload_size_threshold=threshold),
    )


async def _sha256(content: bytes) -> str:
    return (await asyncio.to_thread(hashlib.sha256, content)).hexdigest()
