"""`sandbox-core worker`: runs workflows, activities and sandboxes until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from typing import NoReturn

from temporalio.client import Plugin
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.worker import Worker

from sandbox_core.cli.connection import connect
from sandbox_core.cli.worker.health import health_server
from sandbox_core.cli.worker.logs import set_up_logging
from sandbox_core.cli.worker.otlp import Spans, export_metrics
from sandbox_core.cli.worker.targets import load_targets
from sandbox_core.config import WorkerSettings
from sandbox_core.errors import InvalidRequest
from sandbox_core.worker import HISTOGRAM_BUCKETS, SandboxPlugin

logger = logging.getLogger(__name__)


async def run_worker(
    settings: WorkerSettings, *, address: str | None, namespace: str | None, profile: str | None
) -> NoReturn:
    """Run a worker until SIGTERM or SIGINT, and end the process.

    Its exit code is 0, or 1 if its activities have not ended in time.

    Args:
        settings: What the worker runs, and how. When four fifths of its grace period have passed,
            activities are cancelled.
        address: The Temporal server; None for Temporal's own configuration.
        namespace: The namespace; None for Temporal's own configuration.
        profile: The profile of Temporal's own configuration; None for the environment's.

    Raises:
        InvalidRequest: A target is neither a workflow nor an activity, or cannot be imported.
        ServerUnavailable: The Temporal server cannot be reached, or the configuration is invalid.
        SandboxCoreError: A required provider or the storage cannot be used.
        RuntimeError: A port cannot be used, or the worker failed.
    """
    set_up_logging(as_json=settings.log_format == "json")
    found = load_targets(settings.targets)
    plugins = _plugins(openai=settings.openai)
    spans = Spans() if settings.otlp else None
    if spans is not None:
        plugins.append(spans.plugin)
    if settings.metrics_port is not None:
        _serve_metrics(settings.metrics_port)
    elif settings.otlp:
        export_metrics()
    client = await connect(address, namespace, profile=profile, plugins=plugins)
    activities = settings.max_concurrent_activities
    with ThreadPoolExecutor(activities) as executor:
        worker = Worker(
            client,
            task_queue=settings.task_queue,
            workflows=found.workflows,
            activities=found.activities,
            activity_executor=executor,  # For activities that are ordinary functions.
            max_concurrent_activities=activities,
            graceful_shutdown_timeout=settings.grace_period * 0.8,
        )
        async with AsyncExitStack() as stack:
            stopping = stack.enter_context(_stop_signals())

            def not_ready() -> str:
                if stopping.is_set():
                    return "stopping"
                return "" if worker.is_running else "starting"

            if settings.health_port is not None:
                await stack.enter_async_context(health_server(settings.health_port, not_ready))
            logger.info(
                "task queue %s, namespace %s at %s: sandboxes, workflows: %s, activities: %s",
                settings.task_queue,
                client.namespace,
                client.service_client.config.target_host,
                len(found.workflows),
                len(found.activities),
            )
            ended = await _run(worker, stopping, settings.grace_period)
            if spans is not None:
                await spans.flush()
            # The end of the event loop would wait for threads that activities have started.
            _exit(0 if ended else 1)


async def _run(worker: Worker, stopping: asyncio.Event, grace: timedelta) -> bool:
    """Run a worker until `stopping`; return whether it ended within `grace` of it.

    Raises:
        Exception: It failed.
    """
    running = asyncio.ensure_future(worker.run())
    told = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not running.done():
        logger.info("stopping, within %s s", grace.total_seconds())
        shutdown = asyncio.ensure_future(worker.shutdown())
        await asyncio.wait([running], timeout=grace.total_seconds())
        shutdown.cancel()
        if not running.done():
            # Without the server, the worker cannot end either.
            logger.error(
                "not ended within %s s: activities run, or the Temporal server is unreachable",
                grace.total_seconds(),
            )
            return False
    await running
    logger.info("stopped")
    return True


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Yield an event that SIGTERM and SIGINT set; the second one ends the process at once."""
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop(signum: int) -> None:
        if stopping.is_set():
            _exit(128 + signum)
        stopping.set()

    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop, signum)
    yield stopping


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _plugins(*, openai: bool) -> list[Plugin]:
    if not openai:
        return [SandboxPlugin()]
    try:
        from temporalio.openai_agents import OpenAIAgentsPlugin
    except ImportError as error:
        raise InvalidRequest(
            "--openai needs temporalio-openai-agents: pip install temporalio-openai-agents"
        ) from error
    if not os.environ.get("OPENAI_API_KEY"):
        raise InvalidRequest("--openai needs OPENAI_API_KEY in the worker's environment")
    return [OpenAIAgentsPlugin(), SandboxPlugin()]


def _serve_metrics(port: int) -> None:
    """Serve Prometheus metrics of all clients and workers of this process.

    Raises:
        RuntimeError: The port cannot be used.
    """
    exporter = PrometheusConfig(
        bind_address=f"0.0.0.0:{port}",
        counters_total_suffix=True,
        unit_suffix=True,
        durations_as_seconds=True,
        histogram_bucket_overrides=HISTOGRAM_BUCKETS,
    )
    try:
        runtime = Runtime(telemetry=TelemetryConfig(metrics=exporter))
    except (RuntimeError, ValueError) as error:
        raise RuntimeError(f"--metrics-port {port}: {error}. Choose another port.") from error
    Runtime.set_default(runtime)
