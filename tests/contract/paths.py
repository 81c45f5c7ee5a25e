"""What the core promises of names, with the backend of any provider.

A plugin's tests subclass the class, with a fixture `provider_name`; a worker finds the provider.
"""

from __future__ import annotations

from datetime import timedelta

from support import archive, running_worker, unique
from temporalio.client import Client
from workflows.paths import NamesBackslashes


class PathPromises:
    """A path names what it names for the sandbox."""

    async def test_may_have_a_backslash_which_separates_nothing(
        self, temporal_client: Client, provider_name: str
    ) -> None:
        """Or `rm` would delete a folder that nobody has named."""
        async with running_worker(temporal_client, NamesBackslashes) as queue:
            seen = await temporal_client.execute_workflow(
                NamesBackslashes.run,
                args=[provider_name, archive("extracted", b"")],
                id=unique("names"),
                task_queue=queue,
                run_timeout=timedelta(seconds=60),
            )

        assert ["0", "written\n", "a\\b", "a\\b"] == seen[:4]
        assert {"./a/b/file", "./a/c", "./d\\e", "./d\\f", "safe"} <= set(seen[4:])
        assert "./a\\b" not in seen
