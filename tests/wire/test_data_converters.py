"""Workflows give the same result with any data converter, and wherever the plugin is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import temporalio.worker
from agents import Model, ModelProvider
from agents.testing import ScriptedModel
from support import running_worker, unique
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHistory
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    JSONPlainPayloadConverter,
    PayloadCodec,
)
from temporalio.openai_agents import OpenAIAgentsPlugin, OpenAIPayloadConverter
from wire.workflows import BINARY, LargeManifest, WholeSession

from sandbox_core.worker import SandboxPlugin

EXPECTED = {
    "running": "True",
    "exec": "b'gr\\xc3\\xbc\\xc3\\x9fe\\n' b'err\\xff' 3",
    "manifest file": BINARY.hex(),
    "written file": BINARY[::-1].hex(),
    "empty file": "",
    "ls": "copy.bin file 256 -rw-r--r--",
    "error": "WorkspaceReadNotFoundError",
    "error is the SDK's": "True",
    "error code": "workspace_read_not_found",
    "error retryable": "False",
    "error context": "path",
    "state": '["logo.bin", "notes.txt", "src"]',
}


class SortedJSONConverter(EncodingPayloadConverter):
    """A converter of a company's own: indented JSON with sorted keys, and no use of type hints."""

    @property
    def encoding(self) -> str:
        return "json/sorted"

    def to_payload(self, value: object) -> Payload | None:
        text = json.dumps(value, sort_keys=True, indent=1)
        return Payload(metadata={"encoding": b"json/sorted"}, data=text.encode())

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:  # noqa: ANN401 - Temporal's signature
        return json.loads(payload.data)


class SortedPayloadConverter(CompositePayloadConverter):
    def __init__(self) -> None:
        super().__init__(
            *(
                SortedJSONConverter() if isinstance(each, JSONPlainPayloadConverter) else each
                for each in DefaultPayloadConverter.default_encoding_payload_converters
            )
        )


class ReversingCodec(PayloadCodec):
    """Stands where a company encrypts."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(data=payload.SerializeToString()[::-1]) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(payload.data[::-1]) for payload in payloads]


class OneModel(ModelProvider):
    """Offers a model that nobody calls."""

    def get_model(self, model_name: str | None) -> Model:
        return ScriptedModel([])


def openai_plugin() -> OpenAIAgentsPlugin:
    return OpenAIAgentsPlugin(model_provider=OneModel())


def inputs(history: WorkflowHistory) -> list[tuple[str, list[Payload]]]:
    """Return the operation and the arguments of each activity of a workflow."""
    return [
        (
            event.activity_task_scheduled_event_attributes.activity_type.name,
            list(event.activity_task_scheduled_event_attributes.input.payloads),
        )
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


def results(history: WorkflowHistory) -> list[Payload]:
    """Return what each activity of a workflow answered."""
    return [
        payload
        for event in history.events
        if event.HasField("activity_task_completed_event_attributes")
        for payload in event.activity_task_completed_event_attributes.result.payloads
    ]


async def whole_session(
    client: Client, worker_plugins: Sequence[temporalio.worker.Plugin] = ()
) -> dict[str, str]:
    async with running_worker(client, WholeSession, plugins=worker_plugins) as task_queue:
        return await client.execute_workflow(
            WholeSession.run, id=unique("wire"), task_queue=task_queue
        )


class TestDataConverters:
    @pytest.mark.parametrize(
        "converter",
        [
            pytest.param(DataConverter.default, id="default"),
            pytest.param(pydantic_data_converter, id="pydantic"),
            pytest.param(
                DataConverter(payload_converter_class=SortedPayloadConverter), id="custom"
            ),
            pytest.param(DataConverter(payload_codec=ReversingCodec()), id="codec"),
            pytest.param(
                DataConverter(failure_converter_class=DefaultFailureConverterWithEncodedAttributes),
                id="encoded failures",
            ),
        ],
    )
    async def test_the_result_is_the_same(
        self, temporal_address: str, converter: DataConverter
    ) -> None:
        client = await Client.connect(temporal_address, data_converter=converter)

        assert EXPECTED == await whole_session(client, [SandboxPlugin()])

    async def test_the_result_is_the_same_with_the_openai_plugin_first(
        self, temporal_address: str
    ) -> None:
        client = await Client.connect(temporal_address, plugins=[openai_plugin(), SandboxPlugin()])

        assert EXPECTED == await whole_session(client)

    async def test_the_result_is_the_same_with_the_openai_plugin_last(
        self, temporal_address: str
    ) -> None:
        client = await Client.connect(temporal_address, plugins=[SandboxPlugin(), openai_plugin()])

        assert EXPECTED == await whole_session(client)


class TestWhereThePluginIs:
    async def test_on_the_client_alone_it_is_enough(self, temporal_address: str) -> None:
        client = await Client.connect(temporal_address, plugins=[SandboxPlugin()])

        assert EXPECTED == await whole_session(client)

    async def test_on_the_worker_alone_it_is_enough(self, temporal_client: Client) -> None:
        assert EXPECTED == await whole_session(temporal_client, [SandboxPlugin()])

    @pytest.mark.filterwarnings("ignore:The same plugin type")
    async def test_on_both_it_is_used_once(self, temporal_address: str) -> None:
        plugin = SandboxPlugin()
        client = await Client.connect(temporal_address, plugins=[plugin])

        assert EXPECTED == await whole_session(client, [plugin])

    @pytest.mark.filterwarnings("ignore:The same plugin type")
    async def test_two_of_them_on_client_and_worker_do_not_collide(
        self, temporal_address: str
    ) -> None:
        client = await Client.connect(temporal_address, plugins=[SandboxPlugin()])

        assert EXPECTED == await whole_session(client, [SandboxPlugin()])


class TestHistory:
    """What is recorded of a session over a manifest of 50 files."""

    @pytest.fixture(
        params=[DefaultPayloadConverter, PydanticPayloadConverter, OpenAIPayloadConverter]
    )
    async def history(
        self, temporal_address: str, request: pytest.FixtureRequest
    ) -> AsyncIterator[WorkflowHistory]:
        converter = DataConverter(payload_converter_class=request.param)
        client = await Client.connect(temporal_address, data_converter=converter)
        async with running_worker(client, LargeManifest) as task_queue:
            handle = await client.start_workflow(
                LargeManifest.run, id=unique("wire"), task_queue=task_queue
            )
            assert 50 == await handle.result()
            yield await handle.fetch_history()

    async def test_the_bytes_of_a_file_are_raw(self, history: WorkflowHistory) -> None:
        written = dict(inputs(history))["local-sandbox_write"][1]

        assert b"binary/plain" == written.metadata["encoding"]
        assert BINARY == written.data
        assert [(b"binary/plain", BINARY)] == [
            (payload.metadata["encoding"], payload.data)
            for payload in results(history)
            if payload.metadata["encoding"] == b"binary/plain"
        ]

    async def test_only_the_create_carries_the_manifest(self, history: WorkflowHistory) -> None:
        assert ["local-sandbox_create_session"] == [
            name
            for name, payloads in inputs(history)
            if any(b"file_49.py" in payload.data for payload in payloads)
        ]
        assert [] == [payload for payload in results(history) if b"file_49.py" in payload.data]

    async def test_an_operation_is_recorded_in_less_than_a_kilobyte(
        self, history: WorkflowHistory
    ) -> None:
        sizes = {
            name: sum(payload.ByteSize() for payload in payloads)
            for name, payloads in inputs(history)
        }

        assert sizes.pop("local-sandbox_create_session") > 30_000
        assert {
            "local-sandbox_start",
            "local-sandbox_exec",
            "local-sandbox_write",
            "local-sandbox_read",
            "local-sandbox_delete_session",
        } == sizes.keys()
        assert max(sizes.values()) < 1024
