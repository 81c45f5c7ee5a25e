"""The driver of Temporal's external storage, and the clients and workers that get it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support import running_worker, unique
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import (
    DataConverter,
    ExternalStorage,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
    WorkflowSerializationContext,
)
from temporalio.worker import Worker
from workflows.storage import RoundTrip

from sandbox_core.errors import StorageError
from sandbox_core.storage.object_store import ObjectStore
from sandbox_core.storage.outage import Outage
from sandbox_core.storage.payload_driver import PayloadDriver, with_storage
from sandbox_core.worker import SandboxPlugin

STORE = StorageDriverStoreContext()
RETRIEVE = StorageDriverRetrieveContext()


def driver_on(store: ObjectStore, patience: timedelta = timedelta(minutes=5)) -> PayloadDriver:
    return PayloadDriver(store, Outage(patience))


class TestDriver:
    async def test_returns_what_it_was_given(self, store: ObjectStore) -> None:
        driver = driver_on(store)
        payloads = [Payload(metadata={"a": b"1", "b": b"2"}, data=bytes(n)) for n in (3, 300_000)]

        claims = await driver.store(STORE, payloads)

        assert payloads == await driver.retrieve(RETRIEVE, claims)

    async def test_stores_the_same_content_once(self, store: ObjectStore) -> None:
        driver = driver_on(store)

        claims = await driver.store(STORE, [Payload(data=b"x"), Payload(data=b"x")])

        assert claims[0] == claims[1]
        assert [f"payloads/{claims[0].claim_data['sha256']}"] == [
            found.key async for found in store.list("payloads")
        ]

    async def test_notices_that_an_object_was_changed(self, store: ObjectStore) -> None:
        driver = driver_on(store)
        [claim] = await driver.store(STORE, [Payload(data=b"x")])
        await store.put(f"payloads/{claim.claim_data['sha256']}", Payload(data=b"y").data)

        with pytest.raises(StorageError, match="is corrupt: its SHA-256 does not match") as caught:
            await driver.retrieve(RETRIEVE, [claim])

        assert caught.value.non_retryable


class TestConverter:
    def test_is_told_what_a_payload_is_of_and_keeps_what_it_has_made(
        self, store: ObjectStore
    ) -> None:
        """Temporal makes payload converters anew, for each activity; with them go their caches."""
        converter = with_storage(DataConverter.default, driver_on(store), 10)
        of = StorageDriverStoreContext(target=StorageDriverWorkflowInfo(id="w", namespace="n"))

        told = converter._with_contexts(WorkflowSerializationContext("n", "w"), of)

        assert told.payload_converter is converter.payload_converter
        assert told.external_storage is not None
        assert of == told.external_storage._store_context
        assert converter.external_storage is not None
        assert of != converter.external_storage._store_context


class TestOutage:
    async def test_is_waited_for_until_patience_runs_out(self, unreachable_url: str) -> None:
        store = ObjectStore(unreachable_url)
        patient, impatient = Outage(timedelta(hours=1)), Outage(timedelta(0))
        for outage, final in ((patient, False), (impatient, True)):
            with pytest.raises(StorageError) as caught:
                await PayloadDriver(store, outage).store(STORE, [Payload(data=b"x")])
            assert final == caught.value.non_retryable

        assert patient.problem() is None
        assert "storage s3://bucket/prefix: cannot look up payloads/" in (impatient.problem() or "")

    async def test_ends_when_the_store_answers(
        self, unreachable_url: str, store: ObjectStore
    ) -> None:
        outage = Outage(timedelta(0))
        with pytest.raises(StorageError):
            await outage.watch(ObjectStore(unreachable_url).get("a"))

        await outage.watch(store.put("a", b"x"))

        assert outage.problem() is None

    async def test_a_missing_object_is_none(self, store: ObjectStore) -> None:
        outage = Outage(timedelta(0))
        with pytest.raises(StorageError):
            await outage.watch(store.get("missing"))

        assert outage.problem() is None


class TestPlugin:
    async def test_gives_the_client_a_storage(self, temporal_address: str) -> None:
        plugin = SandboxPlugin(storage="memory://client")
        client = await Client.connect(temporal_address, plugins=[plugin])

        storage = client.data_converter.external_storage

        assert storage is not None
        assert ["sandbox-core"] == [driver.name() for driver in storage.drivers]
        assert 128 * 1024 == storage.payload_size_threshold

    async def test_leaves_a_storage_that_the_user_has_set(self, temporal_address: str) -> None:
        own = ExternalStorage(drivers=[driver_on(ObjectStore("memory://own"))])
        client = await Client.connect(
            temporal_address,
            data_converter=DataConverter(external_storage=own),
            plugins=[SandboxPlugin(storage="memory://client")],
        )

        assert own is client.data_converter.external_storage

    async def test_gives_a_worker_a_storage_and_not_the_users_client(
        self, temporal_client: Client
    ) -> None:
        worker = Worker(
            temporal_client,
            task_queue=unique("queue"),
            workflows=[RoundTrip],
            plugins=[SandboxPlugin(storage="memory://worker")],
        )

        assert worker.client.data_converter.external_storage is not None
        assert temporal_client.data_converter.external_storage is None

    async def test_warns_once_a_worker_if_nobody_chose_the_storage(
        self,
        temporal_client: Client,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("SANDBOX_CORE_STORAGE", raising=False)
        for storage in (None, "memory://chosen"):
            plugin = SandboxPlugin(storage=storage)
            async with running_worker(temporal_client, RoundTrip, plugins=[plugin]):
                pass

        warnings = [record.getMessage() for record in caplog.records if "no storage" in record.msg]
        assert 1 == len(warnings)
        assert "works only while all workers run on this host" in warnings[0]

    def test_refuses_a_url_that_is_none(self) -> None:
        with pytest.raises(StorageError, match="nor the URL of a store"):
            SandboxPlugin(storage="ftp://host/x")
