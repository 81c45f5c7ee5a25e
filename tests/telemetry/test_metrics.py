"""A worker's metrics, as Prometheus gets them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import promql_parser
import pytest
from local_backend import LocalClient, LocalProvider
from support import running_worker, unique
from telemetry.prometheus import Exporter, Sample
from temporalio.client import Client, WorkflowFailureError
from temporalio.runtime import MetricBuffer, MetricBufferDurationFormat, Runtime, TelemetryConfig
from workflows.telemetry import LARGE, LeavesSandbox, Observed, RunsCommand

from sandbox_core.reap_workflow import REAP_WORKFLOW, ReapProviders
from sandbox_core.wire.messages import ReapRequest
from sandbox_core.wire.metrics import METRICS, Kind
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.metrics import MAX_OUTCOMES, OTHER, ProviderMetrics

SUFFIXES = {
    Kind.COUNTER: ("_total",),
    Kind.GAUGE: ("",),
    Kind.DURATIONS: ("_seconds_bucket", "_seconds_sum", "_seconds_count"),
}
DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "sandbox-core.json"
OF_GRAFANA = {"__rate_interval", "__range"}
OF_PROMETHEUS = {"service_name", "le"}


class BusyOnce(LocalProvider):
    """A backend whose first create fails for a reason that passes."""

    name = "busy"
    is_busy = True

    def labelled(self, client: LocalClient, labels: Mapping[str, str]) -> LocalClient:
        if self.is_busy:
            self.is_busy = False
            raise ConnectionError("busy")
        return super().labelled(client, labels)


@dataclass(kw_only=True)
class Measured:
    """A worker whose metrics can be read, for sandboxes in a folder of their own."""

    client: Client
    exporter: Exporter
    queue: str

    async def run(self, workflow: str, *arguments: object) -> None:
        await self.client.execute_workflow(
            workflow, args=arguments, id=unique("measured"), task_queue=self.queue
        )

    async def values(self, name: str, *by: str, **labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of a metric with these labels, by the values of others."""
        return values(await self.exporter.scrape(), name, *by, **labels)


def values(
    samples: list[Sample], name: str, *by: str, **labels: str
) -> dict[tuple[str, ...], float]:
    return {
        tuple(each.labels[label] for label in by): each.value
        for each in samples
        if each.name == f"sandbox_core_{name}" and each.has(labels)
    }


@pytest.fixture
async def measured(
    temporal_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Measured]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    exporter = Exporter()
    plugin = SandboxPlugin(providers=[BusyOnce()], storage=str(tmp_path / "storage"))
    client = await Client.connect(temporal_address, runtime=exporter.runtime, plugins=[plugin])
    workflows = (Observed, LeavesSandbox, RunsCommand)
    async with running_worker(client, *workflows, plugins=[]) as queue:
        # The default is a thousand sessions.
        for runtime in plugin._runtimes.values():
            runtime._pool.max_sessions = 1
        yield Measured(client=client, exporter=exporter, queue=queue)


@pytest.fixture
async def samples(measured: Measured) -> list[Sample]:
    """What a worker exports after everything that is counted has happened."""
    await measured.run("Observed", "local")
    await measured.run("RunsCommand", "busy", "true")
    await measured.run("LeavesSandbox", "local")
    reap = ReapRequest(older_than_s=0, delete=True)
    await measured.run(REAP_WORKFLOW, ReapProviders(providers=("local",), reap=reap).dump())
    return await measured.exporter.scrape()


def attributes_of(samples: list[Sample]) -> dict[str, set[str]]:
    """Return the labels of each exported metric, without Prometheus's own."""
    exported: dict[str, set[str]] = {}
    for sample in samples:
        exported.setdefault(sample.name, set()).update(sample.labels.keys() - OF_PROMETHEUS)
    return exported


async def test_every_metric_of_the_table_is_exported(
    measured: Measured, samples: list[Sample]
) -> None:
    """With the attributes of its row, and no metric that is not in the table."""
    assert attributes_of(samples) == {
        row.name + suffix: set(row.attributes) for row in METRICS for suffix in SUFFIXES[row.kind]
    }
    local = {"provider": "local", "task_queue": measured.queue}
    operations = values(samples, "operations_total", "operation", "outcome", **local)
    assert {
        ("exec", "ok"): 1,
        ("exec", "exec_timeout"): 1,
        ("read", "ok"): 1,
        ("read", "workspace_read_not_found"): 1,
    } == {key: value for key, value in operations.items() if key[0] in ("exec", "read")}
    assert ("start", "SessionNotOpen") in operations
    assert {("exec", "out"): 9, ("write", "in"): len(LARGE), ("read", "out"): len(LARGE)} == values(
        samples, "operation_bytes_total", "operation", "direction", **local
    )
    assert {0.0} == set(values(samples, "active_operations", "operation", **local).values())
    (took,) = values(samples, "operation_duration_seconds_sum", operation="exec", **local).values()
    assert 0.1 < took < 20
    assert {("workflow",): 3, ("reaper",): 1} == values(
        samples, "sandbox_lifetime_seconds_count", "deleted_by", **local
    )
    assert {("deleted",): 1} == values(samples, "reaped_sandboxes_total", "outcome", **local)
    assert {("create_session",): 1} == values(
        samples, "operation_retries_total", "operation", provider="busy"
    )
    stored = values(samples, "storage_bytes_total", "kind", "direction")
    assert len(LARGE) < stored["snapshots", "written"] == stored["snapshots", "read"]
    # The file was stored once and read twice: by the activity that wrote it, and by the workflow.
    assert len(LARGE) < stored["payloads", "written"] < 2 * len(LARGE) < stored["payloads", "read"]


async def test_the_dashboard_shows_what_is_exported(samples: list[Sample]) -> None:
    """Each of its queries is valid, and is about metrics and labels that a worker exports."""
    exported, shown = attributes_of(samples), set()
    for panel, query in queries():
        selected, labels = read(query)
        assert selected <= exported.keys(), panel
        for name in selected:
            assert labels - {"le"} <= exported[name], panel
        shown |= selected

    for row in METRICS:
        assert shown & {row.name + suffix for suffix in SUFFIXES[row.kind]}, row.name


def queries() -> Iterator[tuple[str, str]]:
    """Iterate over the panels' titles and queries."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            names = set(re.findall(r"\$(\w+)", target["expr"]))
            assert names <= variables | OF_GRAFANA, panel["title"]
            yield panel["title"], target["expr"]


def read(query: str) -> tuple[set[str], set[str]]:
    """Return the metrics that a query selects, and the labels that it names."""
    selected: set[str] = set()
    labels: set[str] = set()

    def visit(expr: promql_parser.Expr) -> None:
        if isinstance(expr, promql_parser.VectorSelector):
            assert expr.name is not None
            selected.add(expr.name)
            labels.update(matcher.name for matcher in expr.matchers.matchers)
        elif isinstance(expr, promql_parser.AggregateExpr) and expr.modifier is not None:
            labels.update(expr.modifier.labels)

    promql_parser.walk(promql_parser.parse(re.sub(r"\[\$\w+\]", "[5m]", query)), visit)
    return selected, labels


async def test_a_command_counts_as_active_while_it_runs(measured: Measured, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    running = asyncio.create_task(measured.run("RunsCommand", "local", f"cat {fifo}"))
    # It can be opened for writing as soon as the command has opened it for reading.
    opened = await asyncio.to_thread(open, fifo, "wb")

    assert {(): 1} == await measured.values("active_operations", operation="exec")

    opened.close()
    await running
    assert {(): 0} == await measured.values("active_operations", operation="exec")


async def test_a_cancelled_command_is_neither_ok_nor_an_error(
    measured: Measured, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    handle = await measured.client.start_workflow(
        "RunsCommand",
        args=["local", f"cat {fifo}"],
        id=unique("cancelled"),
        task_queue=measured.queue,
    )
    opened = await asyncio.to_thread(open, fifo, "wb")
    await handle.cancel()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    opened.close()

    assert {("cancelled",): 1} == await measured.values(
        "operations_total", "outcome", operation="exec"
    )


def test_the_outcomes_of_an_operation_are_bounded() -> None:
    """A vendor's errors may have any names."""
    buffer = MetricBuffer(10_000, MetricBufferDurationFormat.SECONDS)
    runtime = Runtime(telemetry=TelemetryConfig(metrics=buffer))
    operation = ProviderMetrics(runtime.metric_meter).operation("exec")

    for number in range(MAX_OUTCOMES + 10):
        operation.began(attempt=1, waited_s=0)
        operation.ended(outcome=f"E{number}", seconds=0, bytes_in=0, bytes_out=0)

    counted = [
        update.attributes["outcome"]
        for update in buffer.retrieve_updates()
        if "sandbox_core_operations" == update.metric.name
    ]
    assert MAX_OUTCOMES + 1 == len(set(counted))
    assert 10 == counted.count(OTHER)
