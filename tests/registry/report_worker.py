"""Run in an environment's interpreter: prints what workers with `SandboxPlugin` do there.

The argument is a JSON object: the `address` of a Temporal server, the `configurations` to make a
worker in (each an `environ`, and the names of `passed` providers), and the provider names to `use`
in workflows of one more worker, one after the other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import cast

from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from sandbox_core.errors import ProviderError
from sandbox_core.providers import LoadedProvider, discover, load
from sandbox_core.providers.registry import Provider
from sandbox_core.wire.naming import offered_providers
from sandbox_core.worker import SandboxPlugin
from sandbox_core.workflow import temporal_sandbox_client


@workflow.defn
class Use:
    """Runs one command in a sandbox of a provider."""

    @workflow.run
    async def run(self, provider: str) -> str:
        client = temporal_sandbox_client(provider)
        session = await client.create()
        try:
            async with session:
                return (await session.exec("echo", provider)).stdout.decode().strip()
        finally:
            await client.delete(session)


@workflow.defn
class Discover:
    """Does what no workflow may do."""

    @workflow.run
    async def run(self) -> int:
        return len(discover())


class Log(logging.Handler):
    """Keeps the warnings of sandbox-core."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: list[str] = []
        logging.getLogger("sandbox_core").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage())

    def taken(self) -> list[str]:
        taken, self._messages = self._messages, []
        return taken


async def main() -> None:
    asked = json.loads(sys.argv[1])
    log = Log()
    client = await Client.connect(asked["address"])
    configurations = [_configure(client, log=log, **each) for each in asked["configurations"]]
    log.taken()
    task_queue = f"registry-{uuid.uuid4()}"
    worker = Worker(
        client, task_queue=task_queue, workflows=[Use, Discover], plugins=[SandboxPlugin()]
    )
    configured = log.taken()
    async with worker:
        discovered = await _run(client, task_queue, Discover.__name__)
        started = log.taken()
        uses = [await _run(client, task_queue, Use.__name__, name) for name in asked["use"]]
    report = {
        "configurations": configurations,
        "warnings": {"configured": configured, "started": started, "used": log.taken()},
        "discovered_in_workflow": discovered,
        "uses": uses,
    }
    print(json.dumps(report))  # noqa: T201 - what the test reads


def _configure(
    client: Client, *, log: Log, environ: Mapping[str, str], passed: Sequence[str]
) -> dict[str, object]:
    """Make a worker in this environment, which does not run, and say what it would offer."""
    os.environ.update(environ)
    try:
        worker = Worker(
            client,
            task_queue=f"registry-{uuid.uuid4()}",
            workflows=[Use],
            plugins=[SandboxPlugin(providers=[_provider(name) for name in passed])],
        )
    except ProviderError as error:
        return {"error": type(error).__name__, "message": error.message, "warnings": log.taken()}
    finally:
        for key in environ:
            del os.environ[key]
    names = (
        getattr(activity, "__temporal_activity_definition").name
        for activity in worker.config(active_config=True)["activities"]
    )
    return {"offered": offered_providers(" ".join(names)), "warnings": log.taken()}


def _provider(name: str) -> Provider:
    (result,) = load([candidate for candidate in discover() if candidate.name == name])
    assert isinstance(result, LoadedProvider)
    return result.provider


async def _run(client: Client, task_queue: str, name: str, *args: str) -> dict[str, object]:
    """Run a workflow; say how it ended, and in how many attempts of how many activities."""
    handle = await client.start_workflow(
        name, args=args, id=f"registry-{uuid.uuid4()}", task_queue=task_queue
    )
    report: dict[str, object] = {}
    try:
        report["result"] = await handle.result()
    except WorkflowFailureError as error:
        cause = cast("ApplicationError", error.cause)
        report |= {"error": cause.type, "message": cause.message}
    attempts = []
    async for event in handle.fetch_history_events():
        if event.HasField("activity_task_started_event_attributes"):
            attempts.append(event.activity_task_started_event_attributes.attempt)
        if event.HasField("activity_task_failed_event_attributes"):
            failure = event.activity_task_failed_event_attributes.failure
            report["stack_trace"] = failure.stack_trace
    return {**report, "attempts": attempts}


if __name__ == "__main__":
    asyncio.run(main())
    # A native thread of temporalio that has just delivered a result may still be leaving Python,
    # and the interpreter aborts when it finds one while it is finalized.
    sys.stdout.flush()
    os._exit(0)
