"""Implements the storage driver with which Temporal's SDK keeps large payloads in the store."""

from __future__ import annotations

import asyncio
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

# No public API tells which command of a workflow a payload belongs to.
from temporalio.worker._command_aware_visitor import current_command_info

from sandbox_core.errors import StorageError
from sandbox_core.storage.object_store import ObjectStore
from sandbox_core.storage.outage import Outage
from sandbox_core.wire.limits import INLINE_BYTES, MAX_PAYLOAD_BYTES

PAYLOAD_PREFIX = "payloads"
"""The folder of the store that holds payloads, each under its SHA-256."""

DRIVER_NAME = "sandbox-core"
"""The driver's name, which never changes: histories record it in every reference."""

REWRITE_AFTER = timedelta(hours=12)
"""An object of this age is written again when its content is stored again, and so gets young.
The garbage collection relies on this: the content of a much older object was not stored lately."""

_CLAIM_KEY = "sha256"


class PayloadDriver(StorageDriver):
    """Stores payloads by content, after any conversion and encryption."""

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
        """Write the payloads that are not stored yet, and return references to all.

        Raises:
            StorageError: The store did not accept one of them.
        """
        return [await self._outage.watch(self._put(payload)) for payload in payloads]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Return the payloads of references.

        Raises:
            StorageError: A payload cannot be read, is missing, or is damaged.
        """
        return [await self._outage.watch(self._get(claim)) for claim in claims]

    async def _put(self, payload: Payload) -> StorageDriverClaim:
        content = payload.SerializeToString(deterministic=True)
        digest = await _sha256(content)
        key = f"{PAYLOAD_PREFIX}/{digest}"
        known = await self._store.head(key)
        # An old object may be about to be collected. Writing it again makes it young.
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
    """Return `converter` with `driver` for large payloads, unless it already has storage.

    Args:
        converter: A client's or a worker's data converter.
        driver: Stores the payloads.
        threshold: The size in bytes from which an activity's payloads are stored. A workflow's own
            payloads, such as its result, stay in the history if Temporal accepts them.
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


def depends_on_workflows(external: ExternalStorage | None) -> bool:
    """Return whether a storage has to be told which workflow or activity a payload belongs to."""
    return external is not None and not all(
        isinstance(driver, PayloadDriver) for driver in external.drivers
    )


class _StoringDataConverter(DataConverter):
    """Temporal's data converter, but binding a context to it does not rebuild its converters.

    Temporal's rebuilds them for each activity and several times for each workflow task, together
    with pydantic's schemas. That cost as much as the rest of a short command.
    """

    def _with_store_context(self, store_ctx: StorageDriverStoreContext) -> DataConverter:
        if self.external_storage is None or store_ctx == self.external_storage._store_context:
            return self
        bound = object.__new__(type(self))
        storage = self.external_storage._with_store_context(store_ctx)
        vars(bound).update(vars(self), external_storage=storage)
        return bound


def _limit(context: StorageDriverSelectContext, threshold: int) -> int:
    """Return the size in bytes from which a payload is stored."""
    command = current_command_info.get()
    if command is not None:  # A workflow's payload.
        if command.command_type == CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK:
            return threshold
        # A workflow has only one result, and clients without a store read it.
        result = command.command_type == CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION
        return MAX_PAYLOAD_BYTES if result else INLINE_BYTES
    return threshold if _is_of_current_activity(context) else INLINE_BYTES


def _is_of_current_activity(context: StorageDriverSelectContext) -> bool:
    # An activity may also use a client to start workflows.
    if not activity.in_activity():
        return False
    info, target = activity.info(), context.target
    if isinstance(target, StorageDriverActivityInfo):
        return target.id == info.activity_id
    return target is not None and target.id == info.workflow_id


async def _sha256(content: bytes) -> str:
    return (await asyncio.to_thread(hashlib.sha256, content)).hexdigest()
