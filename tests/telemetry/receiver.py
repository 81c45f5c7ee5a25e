"""Receivers of OTLP, over HTTP and gRPC: they decode the requests of real exporters."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from grpclib.const import Cardinality, Handler
from grpclib.server import Server, Stream
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from telemetry.prometheus import free_port


@dataclass(kw_only=True)
class Receiver:
    """What has arrived."""

    url: str
    spans: list[Span] = field(default_factory=list)
    raw: bytes = b""
    """The requests with spans."""
    headers: dict[str, str] = field(default_factory=dict)
    """Those of the last request for each path, under ``acme-key``."""

    _metrics: queue.Queue[list[Metric]] = field(default_factory=queue.Queue)

    def take(self, path: str, body: bytes) -> bytes:
        """Take a request, and return the response."""
        if path == "/v1/traces":
            self.raw += body
            traced = ExportTraceServiceRequest.FromString(body)
            for of_resource in traced.resource_spans:
                for of_scope in of_resource.scope_spans:
                    self.spans += of_scope.spans
            return ExportTraceServiceResponse().SerializeToString()
        assert path == "/v1/metrics", path
        return self.take_metrics(ExportMetricsServiceRequest.FromString(body)).SerializeToString()

    def take_metrics(self, measured: ExportMetricsServiceRequest) -> ExportMetricsServiceResponse:
        """Take a request, and return the response."""
        with suppress(queue.Empty):
            self._metrics.get_nowait()  # Each export has all that was counted.
        self._metrics.put(
            [
                metric
                for of_resource in measured.resource_metrics
                for of_scope in of_resource.scope_metrics
                for metric in of_scope.metrics
            ]
        )
        return ExportMetricsServiceResponse()

    def exports(self, *, within_s: float = 20) -> Iterator[dict[str, Metric]]:
        """Iterate over the exports of metrics, by name, as they arrive.

        Raises:
            queue.Empty: None arrives in time.
        """
        while True:
            yield {metric.name: metric for metric in self._metrics.get(timeout=within_s)}


def start_receiver(port: int = 0) -> Receiver:
    """Run a receiver on loopback, for as long as the process: so does a runtime that exports."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.headers[self.path] = self.headers.get("acme-key", "")
            answer = receiver.take(self.path, body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    receiver = Receiver(url=f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return receiver


def start_grpc_receiver() -> Receiver:
    """Run a receiver of metrics on loopback, for as long as the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    port = free_port()
    receiver = Receiver(url=f"http://127.0.0.1:{port}")

    async def export(
        stream: Stream[ExportMetricsServiceRequest, ExportMetricsServiceResponse],
    ) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(receiver.take_metrics(request))

    class Metrics:
        def __mapping__(self) -> dict[str, Handler]:
            return {
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": Handler(
                    export,
                    Cardinality.UNARY_UNARY,
                    ExportMetricsServiceRequest,
                    ExportMetricsServiceResponse,
                )
            }

    async def start() -> None:
        await Server([Metrics()]).start("127.0.0.1", port)

    asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    return receiver


def attributes_of(carrier: Span | list[KeyValue]) -> dict[str, str | int | float | bool]:
    """Return the attributes of a span or of a data point."""
    pairs = carrier.attributes if isinstance(carrier, Span) else carrier
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> str | int | float | bool:
    found: str | int | float | bool = getattr(value, value.WhichOneof("value") or "string_value")
    return found
