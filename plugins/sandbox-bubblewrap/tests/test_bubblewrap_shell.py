"""`sandbox-core shell` in a sandbox of bubblewrap."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.screen import sandbox_of, shell
from support import running_worker, unique
from temporalio.client import Client
from workflows.visited import Visited

pytest_plugins = ["bubblewrap_fixtures"]


async def test_a_terminal_inside(
    usable: None, temporal_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "bubblewrap")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    variables = {
        "TEMPORAL_ADDRESS": temporal_client.service_client.config.target_host,
        "SANDBOX_CORE_PROVIDERS": "bubblewrap",
    }
    async with running_worker(temporal_client, Visited) as queue:
        handle = await temporal_client.start_workflow(
            Visited.run, "bubblewrap", id=unique("visited"), task_queue=queue
        )
        await handle.execute_update(Visited.sandbox_root)
        sandbox_id = await sandbox_of(temporal_client, handle)
        async with shell(variables, sandbox_id) as screen:
            screen.type("test -t 0 && echo $((6 * 7)) of $(stty size); exit 3\n")
            await screen.shows("42 of 30 100")

            assert 3 == await screen.ended()
        await handle.signal(Visited.end)
        await handle.result()
