"""What a session has used, as its workflow sees it."""

from __future__ import annotations

from support import running_worker, unique
from temporalio.client import Client
from workflows.telemetry import Uses


async def test_is_counted_for_each_handle_and_the_same_in_every_replay(
    temporal_client: Client,
) -> None:
    # Each task of the workflow replays everything before.
    async with running_worker(temporal_client, Uses, max_cached_workflows=0) as queue:
        seen, told = await temporal_client.execute_workflow(
            Uses.run, id=unique("uses"), task_queue=queue
        )

    created, first, second, moved, failed, deleted, later = seen
    assert (0, 0, 0, 0) == (created.seconds, created.commands, created.bytes_in, created.bytes_out)
    out = len(told[0])
    assert (1, 0, out) == (first.commands, first.bytes_in, first.bytes_out)
    assert 0 < float(told[0]) < float(told[1]) == first.seconds
    out += len(told[1])
    assert (2, 0, out) == (second.commands, second.bytes_in, second.bytes_out)
    assert (2, 5, out + 5) == (moved.commands, moved.bytes_in, moved.bytes_out)
    # What failed has moved nothing, but the command that timed out has run.
    assert (3, 5, out + 5) == (failed.commands, failed.bytes_in, failed.bytes_out)
    assert created.seconds < first.seconds < second.seconds < moved.seconds < failed.seconds
    # It ends with the sandbox, also if that is deleted through another handle.
    assert failed.seconds < deleted.seconds == later.seconds
