"""What the core promises of saved workspaces, with the backend of any provider.

A plugin's tests subclass the class, with a fixture `provider_name`; a worker finds the provider.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from support import attempts, running_worker, unique
from temporalio.client import Client
from workflows.snapshots import CannotKeep, Forks, KeepsNamesake, KeepsWhole

LIMIT = timedelta(seconds=60)
"""A workflow task that fails for ever ends the test, and not its patience."""


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

    async def test_has_everything_that_a_workspace_can_have(
        self, temporal_client: Client, provider_name: str
    ) -> None:
        """Hard links, FIFOs, links to absolute paths, odd names: a virtual environment runs."""
        async with running_worker(temporal_client, KeepsWhole) as queue:
            seen = await temporal_client.execute_workflow(
                KeepsWhole.run,
                provider_name,
                id=unique("whole"),
                task_queue=queue,
                run_timeout=LIMIT,
            )

        made, before, restored, hydrated = seen
        assert "" == made
        assert "content\nodd\ndrive\none file\nexecutable\na pipe\n" in before
        assert "True" in before.splitlines()
        assert [before, before] == [restored, hydrated]

    async def test_is_refused_at_once_where_it_could_not_be_restored(
        self, temporal_client: Client, provider_name: str
    ) -> None:
        """By name, and the one before is as good as it was."""
        async with running_worker(temporal_client, CannotKeep) as queue:
            handle = await temporal_client.start_workflow(
                CannotKeep.run,
                provider_name,
                id=unique("kept"),
                task_queue=queue,
                run_timeout=LIMIT,
            )
            error, seen = await handle.result()
            history = await handle.fetch_history()

        assert "a/link is a link to ../../../elsewhere, outside of it" in error
        assert "first" == seen
        assert {1} == set(attempts(history))

    async def test_lacks_what_is_ephemeral_and_nothing_of_the_same_name(
        self, temporal_client: Client, provider_name: str
    ) -> None:
        async with running_worker(temporal_client, KeepsNamesake) as queue:
            seen = await temporal_client.execute_workflow(
                KeepsNamesake.run,
                provider_name,
                id=unique("namesake"),
                task_queue=queue,
                run_timeout=LIMIT,
            )

        assert "saved\nnot saved\nfile" == seen
