"""A backslash in a path is part of a name."""

from __future__ import annotations

from datetime import timedelta

from support import running_worker, unique
from temporalio.client import Client
from workflows.paths import NamesBackslashes

from sandbox_core.testing.contract.files import tar_of


async def test_a_backslash_separates_nothing(temporal_client: Client) -> None:
    """Or `rm` would delete a folder that nobody has named."""
    async with running_worker(temporal_client, NamesBackslashes) as queue:
        seen = await temporal_client.execute_workflow(
            NamesBackslashes.run,
            args=["local", tar_of(("extracted", b""))],
            id=unique("names"),
            task_queue=queue,
            run_timeout=timedelta(seconds=60),
        )

    assert ["0", "written\n", "a\\b", "a\\b"] == seen[:4]
    assert {"./a/b/file", "./a/c", "./d\\e", "./d\\f", "safe"} <= set(seen[4:])
    assert "./a\\b" not in seen
