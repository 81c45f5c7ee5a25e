"""A sandbox that Daytona did not delete is not reported as deleted."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from aiohttp import web
from daytona_loopback import DaytonaLoopback
from daytona_loopback_errors import ApiError
from support import running_worker, unique
from temporalio.client import Client
from workflows.creates import CreateAndHold, Hold


class Refusing(DaytonaLoopback):
    """A server that can refuse to delete."""

    refuses = 0

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        if self.refuses:
            self.refuses -= 1
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "not now")
        return await super()._delete(request)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "daytona")
    running = Refusing(tmp_path)
    with running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


async def test_a_delete_that_is_refused_is_repeated(
    temporal_client: Client, server: Refusing
) -> None:
    """The SDK's client hides every error of a delete, and nothing else is made to delete it."""
    async with running_worker(temporal_client, CreateAndHold) as queue:
        handle = await temporal_client.start_workflow(
            CreateAndHold.run, Hold("daytona"), id=unique("delete"), task_queue=queue
        )
        await handle.execute_update(CreateAndHold.root)
        server.refuses = 3
        await handle.signal(CreateAndHold.finish)
        await handle.result()

    assert {} == dict(server.sandboxes)
    assert (1, 1) == (server.created, server.deleted)
