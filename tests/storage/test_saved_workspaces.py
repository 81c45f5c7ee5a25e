"""What was saved comes back, also where the kit does not look: see its `saved`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from support import attempts, running_worker, unique
from temporalio.client import Client
from workflows.snapshots import CannotKeep, Forks, KeepsWhole

LIMIT = timedelta(seconds=60)
"""A workflow task that fails for ever ends the test, and not its patience."""


async def test_a_snapshot_in_a_folder_is_not_changed_by_later_ones(
    temporal_client: Client, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    async with running_worker(temporal_client, Forks) as queue:
        seen = await temporal_client.execute_workflow(
            Forks.run, args=["local", folder], id=unique("forks"), task_queue=queue
        )

    assert {
        "fork": "second",
        "second": "second",
        "first": "first",
        "the fork": "the fork",
    } == seen


async def test_a_virtual_environment_is_restored_and_hydrated(temporal_client: Client) -> None:
    """Hard links, FIFOs, links to absolute paths, odd names: a virtual environment runs."""
    async with running_worker(temporal_client, KeepsWhole) as queue:
        seen = await temporal_client.execute_workflow(
            KeepsWhole.run,
            "local",
            id=unique("whole"),
            task_queue=queue,
            run_timeout=LIMIT,
        )

    made, before, restored, hydrated = seen
    assert "" == made
    assert "content\nodd\ndrive\none file\nexecutable\na pipe\n" in before
    assert "True" in before.splitlines()
    assert [before, before] == [restored, hydrated]


async def test_what_could_not_be_restored_is_refused_at_once(temporal_client: Client) -> None:
    """By name, and the one before is as good as it was."""
    async with running_worker(temporal_client, CannotKeep) as queue:
        handle = await temporal_client.start_workflow(
            CannotKeep.run,
            "local",
            id=unique("kept"),
            task_queue=queue,
            run_timeout=LIMIT,
        )
        error, seen = await handle.result()
        history = await handle.fetch_history()

    assert "a/link is a link to ../../../elsewhere, outside of it" in error
    assert "first" == seen
    assert {1} == set(attempts(history))
