"""A worker's metrics and spans, as a receiver of OTLP gets them."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from typing import TypeVar

import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from support import running_worker, unique
from telemetry.prometheus import free_port
from telemetry.receiver import Receiver, attributes_of, start_grpc_receiver, start_receiver
from temporalio.client import Client
from temporalio.contrib.opentelemetry import (
    OpenTelemetryPlugin,
    ReplaySafeTracerProvider,
    TracingInterceptor,
    create_tracer_provider,
)
from temporalio.runtime import (
    OpenTelemetryConfig,
    Runtime,
    TelemetryConfig,
)
from workflows.telemetry import SPOKEN, Traced

from sandbox_core.worker import HISTOGRAM_BUCKETS, SandboxPlugin
from sandbox_core.worker.spans import span_of

SECRET = "s3cr3t-0f-th3-w0rk3r"
PERIOD = timedelta(milliseconds=100)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", SECRET)


@pytest.fixture
def receiver() -> Receiver:
    return start_receiver()


def exporting_metrics(url: str, *, http: bool = True) -> Runtime:
    config = OpenTelemetryConfig(
        url=f"{url}/v1/metrics" if http else url,
        http=http,
        metric_periodicity=PERIOD,
        durations_as_seconds=True,
        histogram_bucket_overrides=HISTOGRAM_BUCKETS,
    )
    return Runtime(telemetry=TelemetryConfig(metrics=config))


ProviderT = TypeVar("ProviderT", TracerProvider, ReplaySafeTracerProvider)


def exporting_spans(provider: ProviderT, url: str) -> ProviderT:
    exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces", timeout=1)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


async def traced(client: Client, tracer: trace.Tracer) -> None:
    """Run the workflow within a span of the application."""
    plugins = [SandboxPlugin(worker_env=["ACME_TOKEN"])]
    async with running_worker(client, Traced, plugins=plugins) as queue:
        with tracer.start_as_current_span("application"):
            await client.execute_workflow(Traced.run, id=unique("traced"), task_queue=queue)


def of_operations(receiver: Receiver) -> dict[str, Span]:
    """Return the spans of operations, by the operation and its outcome."""
    found = {}
    for span in receiver.spans:
        attributes = attributes_of(span)
        if "sandbox.operation" in attributes:
            found[f"{attributes['sandbox.operation']} {attributes['sandbox.outcome']}"] = span
    return found


def ancestors(receiver: Receiver, span: Span) -> list[str]:
    by_id = {each.span_id: each for each in receiver.spans}
    names = []
    while span.parent_span_id:
        span = by_id[span.parent_span_id]
        names.append(span.name)
    return names


def of(point: NumberDataPoint | HistogramDataPoint) -> dict[str, str | int | float | bool]:
    return attributes_of(list(point.attributes))


def check(receiver: Receiver) -> dict[str, Span]:
    """Check what the spans say of the workflow, and return them."""
    spans = of_operations(receiver)
    assert {"create_session ok", "exec ok", "read workspace_read_not_found"} <= spans.keys()
    created, ran = (attributes_of(spans[name]) for name in ("create_session ok", "exec ok"))
    waited = ran.pop("sandbox.queue_wait")
    assert isinstance(waited, float)
    assert 0 <= waited < 20
    expected = {
        "sandbox.provider": "local",
        "sandbox.operation": "exec",
        "sandbox.session.id": created["sandbox.session.id"],
        "sandbox.id": created["sandbox.id"],
        "sandbox.attempt": 1,
        "sandbox.outcome": "ok",
        "sandbox.bytes_in": 0,
        "sandbox.bytes_out": len("hellooops"),
        "process.exit.code": 3,
    }
    assert expected == {key: value for key, value in ran.items() if not key.startswith("temporal")}
    assert SPOKEN.encode() not in receiver.raw
    assert SECRET.encode() not in receiver.raw
    return spans


class TestSpans:
    async def test_of_temporals_interceptor_get_the_attributes(
        self, receiver: Receiver, temporal_address: str
    ) -> None:
        """They are no spans of ours: each activity has one."""
        provider = exporting_spans(TracerProvider(), receiver.url)
        tracer = provider.get_tracer("test")
        client = await Client.connect(temporal_address, interceptors=[TracingInterceptor(tracer)])

        await traced(client, tracer)
        provider.shutdown()

        spans = check(receiver)
        assert {"RunActivity:local-sandbox_exec"} == {
            span.name for name, span in spans.items() if name.startswith("exec")
        }
        assert [
            "StartActivity:local-sandbox_exec",
            "StartWorkflow:Traced",
            "application",
        ] == ancestors(receiver, spans["exec ok"])

    async def test_of_ours_are_in_the_trace_where_temporal_makes_none(
        self, receiver: Receiver, temporal_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Temporal's plugin only carries the trace, unless it is told to add spans."""
        provider = exporting_spans(create_tracer_provider(), receiver.url)
        # `set_tracer_provider` can be called only once in a process.
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        client = await Client.connect(temporal_address, plugins=[OpenTelemetryPlugin()])

        await traced(client, provider.get_tracer("test"))
        provider.shutdown()

        spans = check(receiver)
        ran = spans["exec ok"]
        assert "local-sandbox_exec" == ran.name
        assert ["application"] == ancestors(receiver, ran)
        assert Status.STATUS_CODE_UNSET == ran.status.code

    def test_need_nothing_where_nobody_uses_opentelemetry(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")

        with span_of("local-sandbox_exec") as span:
            assert span is None

        assert "opentelemetry.trace" not in sys.modules


class TestMetrics:
    @pytest.mark.parametrize("http", [True, False], ids=["http", "grpc"])
    async def test_arrive_with_their_units(self, http: bool, temporal_address: str) -> None:
        receiver = start_receiver() if http else start_grpc_receiver()
        runtime = exporting_metrics(receiver.url, http=http)
        client = await Client.connect(temporal_address, runtime=runtime)
        await traced(client, trace.NoOpTracer())

        counted, took, size = await asyncio.to_thread(after_the_last_operation, receiver)

        assert ("s", "By") == (took.unit, size.unit)
        (ran,) = [each for each in counted.sum.data_points if "exec" == of(each)["operation"]]
        assert ("ok", 1) == (of(ran)["outcome"], ran.as_int)
        (durations,) = [
            each for each in took.histogram.data_points if "exec" == of(each)["operation"]
        ]
        assert 1 == durations.count
        assert list(HISTOGRAM_BUCKETS[took.name]) == list(durations.explicit_bounds)


def after_the_last_operation(receiver: Receiver) -> tuple[Metric, Metric, Metric]:
    for metrics in receiver.exports():
        counted = metrics.get("sandbox_core_operations")
        if counted is not None and any(
            "delete_session" == of(point)["operation"] for point in counted.sum.data_points
        ):
            took, size = (
                metrics[f"sandbox_core_operation_{name}"] for name in ("duration", "bytes")
            )
            return counted, took, size
    raise AssertionError


class TestReceiverDown:
    async def test_does_not_concern_the_worker(
        self,
        temporal_address: str,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """What is logged does not grow with the operations: Temporal's runtime logs one line for
        each export of metrics, and OpenTelemetry's SDK one or two for each batch of spans.
        """
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        provider = exporting_spans(TracerProvider(), url)
        tracer = provider.get_tracer("test")
        began = time.monotonic()
        client = await Client.connect(
            temporal_address,
            runtime=exporting_metrics(url),
            interceptors=[TracingInterceptor(tracer)],
        )

        for _ in range(3):
            await traced(client, tracer)
        await asyncio.to_thread(provider.shutdown)

        logged = [line for line in capfd.readouterr().out.splitlines() if "export" in line]
        exports = (time.monotonic() - began) / PERIOD.total_seconds()
        assert 1 <= len(logged) <= exports + 2
        of_spans = [each for each in caplog.records if each.name.startswith("opentelemetry")]
        assert 1 <= len(of_spans) < 10
        # Nothing was lost of what is counted.
        counted, _, _ = await asyncio.to_thread(after_the_last_operation, start_receiver(port))
        ran = [each for each in counted.sum.data_points if "exec" == of(each)["operation"]]
        assert 3 == sum(each.as_int for each in ran)
