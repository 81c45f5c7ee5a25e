"""The driver through which Temporal's SDK keeps large payloads in the object store."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import CommandType
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    StorageDriver,
    StorageDriverActivityInfo,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverSelectContext,
    StorageDriverStoreContext,
)

# Nothing public says which command of a workflow a payload belongs to.
from temporalio.worker._command_aware_visitor import current_command_info

from sandbox_core.errors import StorageError
from sandbox_core.storage.object_store import ObjectStore
from sandbox_core.storage.outage import Outage
from sandbox_core.wire.limits import MAX_PAYLOAD_BYTES

PAYLOAD_PREFIX = "payloads"
"""The folder of the store that holds payloads, each under its SHA-256."""

DRIVER_NAME = "sandbox-core"
"""Recorded in every reference in every history: it never changes."""

THRESHOLD_BYTES = 128 * 1024
"""What goes into activities and comes out of them is stored from this size on, if a store was
configured: a session has many, and a history has an end."""

INLINE_BYTES = MAX_PAYLOAD_BYTES // 2
"""Everything else, and without a configured store everything, is stored only from this size on, at
which Temporal may refuse it, as a request has two. So whoever has no store can read it."""

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
                f"storage {self._store.url}: {key} is corrupt: its SHA-256 does not match. "
                f"Restore the object from a backup."
            )
        return Payload.FromString(content)


def with_storage(converter: DataConverter, driver: PayloadDriver, threshold: int) -> DataConverter:
    """Return `converter` with large payloads going to `driver`, unless it has storage already.

    Args:
        converter: A client's or a worker's.
        driver: Stores payloads.
        threshold: From how many bytes on a payload of an activity is stored. A workflow's own, such
            as its result, stays in the history if Temporal takes it.
    """
    if converter.external_storage is not None:
        return converter

    def select(context: StorageDriverSelectContext, payload: Payload) -> StorageDriver | None:
        return driver if payload.ByteSize() >= _limit(context, threshold) else None

    external = ExternalStorage(
        drivers=[driver], driver_selector=select, payload_size_threshold=threshold
    )
    if type(converter) is not DataConverter:
        return dataclasses.replace(converter, external_storage=external)
    settings = {f.name: getattr(converter, f.name) for f in dataclasses.fields(converter) if f.init}
    return _StoringDataConverter(**{**settings, "external_storage": external})


class _StoringDataConverter(DataConverter):
    """Temporal's, which keeps its converters when it tells its storage what a payload is of.

    Temporal's makes them anew, for each activity and several times for each workflow task, and with
    them what pydantic knows of the types: that cost as much as all else that a short command costs.
    """

    def _with_store_context(self, store_ctx: StorageDriverStoreContext) -> DataConverter:
        if self.external_storage is None:
            return self
        bound = copy.copy(self)
        storage = self.external_storage._with_store_context(store_ctx)
        object.__setattr__(bound, "external_storage", storage)  # It is frozen.
        return bound


def _limit(context: StorageDriverSelectContext, threshold: int) -> int:
    """Return from how many bytes on a payload is stored."""
    command = current_command_info.get()
    if command is not None:  # Of a workflow.
        if command.command_type == CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK:
            return threshold
        # There is only one, and clients without a store ask for it.
        result = command.command_type == CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION
        return MAX_PAYLOAD_BYTES if result else INLINE_BYTES
    return threshold if _is_of_current_activity(context) else INLINE_BYTES


def _is_of_current_activity(context: StorageDriverSelectContext) -> bool:
    # An activity may also have a client, with which it starts workflows.
    if not activity.in_activity():
        return False
    info, target = activity.info(), context.target
    if isinstance(target, StorageDriverActivityInfo):
        return target.id == info.activity_id
    return target is not None and target.id == info.workflow_id


async def _sha256(content: bytes) -> str:
    return (await asyncio.to_thread(hashlib.sha256, content)).hexdigest()
