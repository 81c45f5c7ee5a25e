"""Reads what a worker exports for Prometheus."""

from __future__ import annotations

import asyncio
import re
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field

from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from sandbox_core.worker import HISTOGRAM_BUCKETS

_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One line of the exposition format."""

    name: str
    value: float
    labels: dict[str, str]

    def has(self, labels: dict[str, str]) -> bool:
        return labels.items() <= self.labels.items()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass(kw_only=True)
class Exporter:
    """A runtime that exports as docs/observe.md says."""

    port: int = field(default_factory=free_port)
    runtime: Runtime = field(init=False)

    def __post_init__(self) -> None:
        config = PrometheusConfig(
            bind_address=f"127.0.0.1:{self.port}",
            counters_total_suffix=True,
            unit_suffix=True,
            durations_as_seconds=True,
            histogram_bucket_overrides=HISTOGRAM_BUCKETS,
        )
        self.runtime = Runtime(telemetry=TelemetryConfig(metrics=config))

    async def scrape(self) -> list[Sample]:
        """Return the samples of sandbox-core."""

        def ask() -> str:
            url = f"http://127.0.0.1:{self.port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())

        text = await asyncio.to_thread(ask)
        return [each for each in parsed(text) if each.name.startswith("sandbox_core_")]


def parsed(text: str) -> Iterator[Sample]:
    """Iterate over the samples of the exposition format."""
    for line in text.splitlines():
        if line and not line.startswith("#"):
            found = _SAMPLE.fullmatch(line)
            assert found is not None, line
            labels = dict(_LABEL.findall(found["labels"] or ""))
            yield Sample(name=found["name"], value=float(found["value"]), labels=labels)
