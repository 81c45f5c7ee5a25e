"""Shared by several tests: a worker on its own queue, and readers of histories."""

from __future__ import annotations

import asyncio
import base64
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Plugin, Worker

from sandbox_core.providers import Provider, discover, load
from sandbox_core.providers.registry import LoadedProvider
from sandbox_core.worker import SandboxPlugin


def installed_provider(name: str) -> Provider:
    """Return a new provider that is installed, found as a worker finds it."""
    (candidate,) = [each for each in discover() if each.name == name]
    (loaded,) = load([candidate])
    assert isinstance(loaded, LoadedProvider), loaded
    return loaded.provider


def unique(prefix: str) -> str:
    """Return a name that no other test uses."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float = 60) -> None:
    """Return when a condition holds that no event tells of, such as one of a backend or a server.

    Raises:
        TimeoutError: It does not within `within_s` seconds.
    """

    async def ask() -> None:
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)

    await asyncio.wait_for(ask(), within_s)


@asynccontextmanager
async def running_worker(
    client: Client,
    *workflows: type,
    plugins: Sequence[Plugin] | None = None,
    task_queue: str | None = None,
    max_cached_workflows: int = 1000,
    eager: bool = True,
) -> AsyncIterator[str]:
    """Run a worker and yield its task queue."""
    queue = task_queue or unique("queue")
    async with Worker(
        client,
        task_queue=queue,
        workflows=workflows,
        plugins=[SandboxPlugin()] if plugins is None else plugins,
        max_cached_workflows=max_cached_workflows,
        disable_eager_activity_execution=not eager,
    ):
        yield queue


def bytes_of(history: WorkflowHistory) -> bytes:
    """Return a history with the payloads, which are base64 in its JSON, decoded."""
    text = history.to_json()
    payloads = re.findall(r'"data": "([A-Za-z0-9+/=]+)"', text)
    return text.encode() + b"".join(base64.b64decode(payload) for payload in payloads)


def scheduled_activities(history: WorkflowHistory) -> list[str]:
    """Return the activity types that were scheduled, in order."""
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


def completed_activities(history: WorkflowHistory) -> list[str]:
    """Return the activity types that have completed, in order."""
    types = {
        event.event_id: event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    }
    return [
        types[event.activity_task_completed_event_attributes.scheduled_event_id]
        for event in history.events
        if event.HasField("activity_task_completed_event_attributes")
    ]


def attempts(history: WorkflowHistory) -> list[int]:
    """Return the attempt of each activity that started, in order."""
    return [
        event.activity_task_started_event_attributes.attempt
        for event in history.events
        if event.HasField("activity_task_started_event_attributes")
    ]
