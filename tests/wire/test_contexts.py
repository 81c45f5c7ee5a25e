"""Codecs and storage drivers that depend on what a payload belongs to are told it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from support import running_worker, unique
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    ExternalStorage,
    PayloadCodec,
    SerializationContext,
    StorageDriver,
    StorageDriverActivityInfo,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
    WithSerializationContext,
    WorkflowSerializationContext,
)
from temporalio.worker import WorkflowInstance
from wire.workflows import WholeSession

from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.workflow_runner import Contexts, _Instance


class OwnerCodec(PayloadCodec, WithSerializationContext):
    """Seals a payload for the workflow or activity that it belongs to, as per-tenant keys do."""

    def __init__(self, owner: str = "") -> None:
        self._owner = owner.encode()

    def with_context(self, context: SerializationContext) -> OwnerCodec:
        assert isinstance(context, (WorkflowSerializationContext, ActivitySerializationContext))
        activity = (
            context.activity_type if isinstance(context, ActivitySerializationContext) else None
        )
        return OwnerCodec(f"{context.workflow_id}/{activity or ''}")

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"owner": self._owner}, data=payload.SerializeToString())
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        for payload in payloads:
            assert payload.metadata["owner"] == self._owner
        return [Payload.FromString(payload.data) for payload in payloads]


class OwnersDriver(StorageDriver):
    """Keeps everything in memory, and notes whom it was kept for."""

    def __init__(self) -> None:
        self.owners: set[tuple[str, str | None]] = set()
        self._kept: list[bytes] = []

    def name(self) -> str:
        return "owners"

    async def store(
        self, context: StorageDriverStoreContext, payloads: Sequence[Payload]
    ) -> list[StorageDriverClaim]:
        target = context.target
        assert isinstance(target, (StorageDriverActivityInfo, StorageDriverWorkflowInfo))
        self.owners.add((type(target).__name__, target.type))
        self._kept += [payload.SerializeToString() for payload in payloads]
        first = len(self._kept) - len(payloads)
        return [StorageDriverClaim(claim_data={"at": str(first + n)}) for n in range(len(payloads))]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        return [Payload.FromString(self._kept[int(claim.claim_data["at"])]) for claim in claims]


async def whole_session(address: str, converter: DataConverter) -> dict[str, str]:
    client = await Client.connect(address, data_converter=converter)
    async with running_worker(client, WholeSession, plugins=[SandboxPlugin()]) as task_queue:
        return await client.execute_workflow(
            WholeSession.run, id=unique("contexts"), task_queue=task_queue
        )


async def test_a_codec_with_a_key_for_each_owner_opens_what_it_has_sealed(
    temporal_address: str,
) -> None:
    answer = await whole_session(temporal_address, DataConverter(payload_codec=OwnerCodec()))

    assert answer["running"] == "True"


async def test_a_storage_driver_is_told_for_whom_it_stores(temporal_address: str) -> None:
    driver = OwnersDriver()
    storage = ExternalStorage(drivers=[driver], payload_size_threshold=1)

    answer = await whole_session(temporal_address, DataConverter(external_storage=storage))

    assert answer["running"] == "True"
    assert driver.owners == {("StorageDriverWorkflowInfo", "WholeSession")}


_METHODS = {
    name: method
    for name, method in inspect.getmembers(WorkflowInstance, inspect.isfunction)
    if not name.startswith("__")
}


@pytest.mark.parametrize("name", _METHODS)
def test_the_workflow_is_asked_everything_that_the_worker_asks(name: str) -> None:
    """A method that a release of Temporal's adds must not fall back to the abstract class's."""
    asked: list[tuple[object, ...]] = []

    class Workflow:
        def __getattr__(self, method: str) -> Callable[..., object]:
            def record(*arguments: object) -> object:
                asked.append((method, *arguments))
                return method

            return record

    instance: Any = _Instance(cast("WorkflowInstance", Workflow()), Contexts())
    _, *parameters = inspect.signature(_METHODS[name]).parameters

    assert name in vars(_Instance)
    assert name == getattr(instance, name)(*parameters)
    assert [(name, *parameters)] == asked
