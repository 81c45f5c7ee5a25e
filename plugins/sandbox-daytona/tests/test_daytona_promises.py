"""The core's promises with the vendor's SDK and the loopback server, while workers are killed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from aiohttp import web
from daytona_loopback import DaytonaLoopback
from daytona_loopback_errors import ApiError
from faults.promises import Backend
from faults.repeats import RepeatPromises
from faults.sharing_promises import SharingPromises
from support import running_worker, unique
from temporalio.client import Client
from workflows.creates import CreateAndHold, Hold

from sandbox_daytona import sandbox_client_provider
from sandbox_daytona.client import LabellingDaytonaSandboxClient


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


class Daytona(Backend):
    """The sandboxes of a server, looked at in the server."""

    def __init__(self, server: DaytonaLoopback, client: LabellingDaytonaSandboxClient) -> None:
        super().__init__(sandbox_client_provider(), client)
        self._server, self._daytona = server, client._daytona

    async def run(self, sandbox_id: str, script: str) -> str:
        sandbox = await self._daytona.get(sandbox_id)
        return str((await sandbox.process.exec(script)).result)


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


@pytest.fixture
async def backend(server: Refusing) -> AsyncIterator[Backend]:
    client = sandbox_client_provider().create_client()
    async with client:
        yield Daytona(server, client)


class TestDelete:
    """What Daytona has not deleted is not said to be, and no other is made to delete it."""

    @pytest.fixture(autouse=True)
    def _one_is_made(self, server: Refusing) -> Iterator[None]:
        yield
        assert (1, 1) == (server.created, server.deleted)

    async def test_that_is_refused_is_repeated(
        self, temporal_client: Client, server: Refusing, backend: Backend
    ) -> None:
        """The SDK's client hides every error of a delete."""
        async with running_worker(temporal_client, CreateAndHold) as queue:
            handle = await temporal_client.start_workflow(
                CreateAndHold.run, Hold("daytona"), id=unique("delete"), task_queue=queue
            )
            await handle.execute_update(CreateAndHold.root)
            server.refuses = 3
            await handle.signal(CreateAndHold.finish)
            await handle.result()

        assert [] == await backend.sandboxes_of(handle)


class TestSharing(SharingPromises):
    """A sandbox of the server."""


class TestRepeat(RepeatPromises):
    """At the loopback server."""
