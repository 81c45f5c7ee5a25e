"""Exports a worker's metrics and spans by OTLP, to where the variables of OpenTelemetry say."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import unquote

from temporalio.plugin import SimplePlugin
from temporalio.runtime import OpenTelemetryConfig, Runtime, TelemetryConfig

from sandbox_core.errors import InvalidRequest
from sandbox_core.worker import HISTOGRAM_BUCKETS

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_VARIABLE = "OTEL_EXPORTER_OTLP_"
_DEFAULT = "http://localhost:4318"
_PROTOCOL = "http/protobuf"
_INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
_MINUTE_MS = 60_000
_FLUSHED_WITHIN_S = 3.0


def export_metrics() -> None:
    """Export metrics of all clients and workers of this process.

    Raises:
        InvalidRequest: The variables are invalid, or name another protocol.
    """
    _check_protocol("METRICS")
    endpoint = os.environ.get(f"{_VARIABLE}METRICS_ENDPOINT")
    base = os.environ.get(f"{_VARIABLE}ENDPOINT") or _DEFAULT
    try:
        exporter = OpenTelemetryConfig(
            url=endpoint or f"{base.rstrip('/')}/v1/metrics",
            headers=_headers(),
            metric_periodicity=timedelta(milliseconds=int(os.environ.get(_INTERVAL) or _MINUTE_MS)),
            http=True,
            durations_as_seconds=True,
            histogram_bucket_overrides=HISTOGRAM_BUCKETS,
        )
        runtime = Runtime(telemetry=TelemetryConfig(metrics=exporter))
    except (RuntimeError, ValueError) as error:
        raise InvalidRequest(
            f"--otlp: {error}. See {_VARIABLE}ENDPOINT, {_VARIABLE}HEADERS and {_INTERVAL}"
        ) from error
    Runtime.set_default(runtime)


class Spans:
    """The export of spans; `plugin` records them.

    Raises:
        InvalidRequest: OpenTelemetry is not installed, or the variables name another protocol.
    """

    def __init__(self) -> None:
        _check_protocol("TRACES")
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from temporalio.contrib.opentelemetry import TracingInterceptor
        except ImportError as error:
            raise InvalidRequest(
                "--otlp needs OpenTelemetry: pip install 'sandbox-core[otlp]'"
            ) from error
        name = os.environ.get("OTEL_SERVICE_NAME") or "sandbox-core-worker"
        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: name})
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        tracer = self._provider.get_tracer("sandbox_core")
        self.plugin = SimplePlugin("sandbox-core-otlp", interceptors=[TracingInterceptor(tracer)])

    async def flush(self) -> None:
        """Export what has not been exported; give up soon if the receiver does not answer."""
        flushing = asyncio.to_thread(self._provider.force_flush)
        await asyncio.wait([asyncio.ensure_future(flushing)], timeout=_FLUSHED_WITHIN_S)


def _check_protocol(signal: str) -> None:
    for name in (f"{_VARIABLE}{signal}_PROTOCOL", f"{_VARIABLE}PROTOCOL"):
        if protocol := os.environ.get(name):
            if protocol != _PROTOCOL:
                raise InvalidRequest(f"{name} is {protocol!r}: --otlp only speaks {_PROTOCOL!r}")
            return


def _headers() -> dict[str, str]:
    given = os.environ.get(f"{_VARIABLE}METRICS_HEADERS") or os.environ.get(f"{_VARIABLE}HEADERS")
    pairs = (pair.partition("=") for pair in (given or "").split(",") if pair.strip())
    return {unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs}
