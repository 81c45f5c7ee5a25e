"""What sandbox-core promises of a session that several use, on every backend.

A plugin's tests subclass `SharingPromises`, and have a fixture `backend`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from faults.harness import Workers, workers
from faults.promises import Backend
from support import unique
from temporalio.client import Client
from workflows.sharing import Shared, ShareSession, UseShared


class SharingPromises:
    """Handles of one workflow and children share a session, wherever their operations land."""

    @pytest.fixture
    def fleet(self, temporal_address: str, backend: Backend) -> Iterator[Workers]:
        with workers(temporal_address, unique("share"), ShareSession, UseShared) as started:
            yield started

    @pytest.mark.parametrize("killed", [False, True], ids=["all workers live", "one is killed"])
    async def test_every_command_runs_once(
        self, temporal_client: Client, fleet: Workers, backend: Backend, killed: bool
    ) -> None:
        first, _second = await asyncio.gather(fleet.start(), fleet.start())
        shared = Shared(
            handles=2, children=2, commands=6, pause_s=0.2, whole=False, provider=backend.name
        )
        handle = await temporal_client.start_workflow(
            ShareSession.run, shared, id=unique("share"), task_queue=fleet.queue
        )
        await handle.execute_update(ShareSession.begun)
        if killed:
            first.kill()
            await fleet.start()
        seen = await handle.result()

        users = ["owner", "handle-0", "handle-1", "child-0", "child-1"]
        expected = [f"{user}.{number}" for user in users for number in range(6)]
        assert sorted(expected) == sorted(seen)
        assert [] == await backend.sandboxes_of(handle)
