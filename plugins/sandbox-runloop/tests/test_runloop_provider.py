"""Provider `runloop`: the vendor's SDK against the loopback server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from agents.extensions.sandbox.runloop import RunloopSandboxClientOptions
from agents.sandbox import LocalSnapshotSpec
from agents.sandbox.session import SandboxSession
from contract.labelled import (
    LABELS,
    create,
    find_ids,
)
from loopback.http_faults import HttpFaults
from runloop_api_client import NotFoundError
from runloop_loopback import RunloopLoopback

from sandbox_runloop import RunloopProvider
from sandbox_runloop.client import LabellingRunloopSandboxClient

pytest_plugins = ["runloop_fixtures"]


class TestFault(HttpFaults):
    """Of Runloop's API."""

    create = "POST /v1/devboxes/create_and_await_running"
    lookup = "GET /v1/devboxes/.+"
    delete = "POST /v1/devboxes/.+/shutdown"
    execute = "POST /v1/devboxes/.+/execute_async"
    listing = "GET /v1/devboxes"
    at_capacity = (429, {"message": "too many devboxes"})
    refused_for_now = (409, 502)
    headers = {"x-should-retry": "false"}  # noqa: RUF012 - as in the base class

    async def test_retry_after_is_waited_for(
        self,
        server: RunloopLoopback,
        provider: RunloopProvider,
        client: LabellingRunloopSandboxClient,
    ) -> None:
        """By Runloop's SDK."""
        server.fail(self.create, 429, headers={"Retry-After": "2"})
        began = time.monotonic()
        await client.create(options=provider.default_options())

        assert 2 <= time.monotonic() - began
        assert 1 == len(server.machines)


class TestFind:
    """The devboxes of an account."""

    async def test_every_page_of_the_list_is_read(
        self,
        server: RunloopLoopback,
        provider: RunloopProvider,
        client: LabellingRunloopSandboxClient,
    ) -> None:
        """The last one counts, whether it is full or not."""
        server.page_size = 2
        made = {provider.identity((await create(provider, client, LABELS)).state) for _ in range(5)}

        assert made == set(await find_ids(provider, client, LABELS))

    async def test_a_devbox_that_is_suspended_is_found(
        self,
        server: RunloopLoopback,
        provider: RunloopProvider,
        client: LabellingRunloopSandboxClient,
    ) -> None:
        """It costs its disk."""
        options = RunloopSandboxClientOptions(pause_on_exit=True)
        session = await provider.labelled(client, LABELS).create(options=options)
        await client.delete(session)

        assert ["suspended"] == [box.status for box in server.devboxes.values()]
        assert [provider.identity(session.state)] == await find_ids(provider, client, LABELS)


class TestRelabel:
    """Metadata, which Runloop replaces as a whole."""

    async def test_of_a_devbox_that_is_unknown_is_an_error(
        self, provider: RunloopProvider, client: LabellingRunloopSandboxClient
    ) -> None:
        """Nothing is there that could have labels."""
        with pytest.raises(NotFoundError):
            await provider.relabel(client, "dbx_unknown", {"a": "b"})


class TestSession:
    """Labels, and the session that a devbox was made for."""

    async def test_a_start_labels_the_devbox_that_it_makes_of_a_snapshot(
        self, provider: RunloopProvider, client: LabellingRunloopSandboxClient, tmp_path: Path
    ) -> None:
        """Runloop's disk snapshots make another devbox, not another workspace."""
        labelled = provider.labelled(client, LABELS)
        session: SandboxSession = await labelled.create(
            options=provider.default_options(),
            snapshot=LocalSnapshotSpec(base_path=tmp_path / "snapshots"),
        )
        await session.start()
        await session.stop()
        await client.delete(session)
        resumed = await labelled.resume(session.state)
        before = provider.identity(resumed.state)
        await resumed.start()
        after = provider.identity(resumed.state)

        assert before != after
        assert [after] == await find_ids(provider, client, LABELS)
