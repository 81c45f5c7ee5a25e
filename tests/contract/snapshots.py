"""What the core promises of saved workspaces, with the backend of any provider.

A plugin's tests subclass the class, with a fixture `provider_name`; a worker finds the provider.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import running_worker, unique
from temporalio.client import Client
from workflows.snapshots import Forks


class SnapshotPromises:
    """What was saved comes back, whatever is saved later."""

    @pytest.mark.parametrize("snapshot", ["storage", "folder"])
    async def test_is_not_changed_by_later_ones_nor_by_those_of_a_fork(
        self, temporal_client: Client, provider_name: str, snapshot: str, tmp_path: Path
    ) -> None:
        folder = str(tmp_path) if snapshot == "folder" else None
        async with running_worker(temporal_client, Forks) as queue:
            seen = await temporal_client.execute_workflow(
                Forks.run, args=[provider_name, folder], id=unique("forks"), task_queue=queue
            )

        assert {
            "fork": "second",
            "second": "second",
            "first": "first",
            "the fork": "the fork",
        } == seen
