"""Event groups, by which Temporal's tools show what belongs to one sandbox."""

from __future__ import annotations

from support import running_worker, unique
from temporalio.client import Client
from workflows.groups import UsesTwoSandboxes


async def test_the_events_of_a_session_are_a_group(temporal_client: Client) -> None:
    """With those of its create, of another handle, and beside the user's own groups."""
    async with running_worker(temporal_client, UsesTwoSandboxes) as queue:
        handle = await temporal_client.start_workflow(
            UsesTwoSandboxes.run, id=unique("groups"), task_queue=queue
        )
        await handle.result()

    history = await handle.fetch_history()
    story = [
        (
            scheduled.activity_type.name.removeprefix("local-sandbox_"),
            event.user_metadata.summary.data.decode().strip('"').partition(": ")[2],
            [marker.label.id for marker in event.event_group_markers],
        )
        for event in history.events
        if (scheduled := event.activity_task_scheduled_event_attributes).activity_type.name
    ]
    ones, twos = ["tests", "local-sandbox-1"], ["tests", "local-sandbox-2"]
    assert story == [
        ("create_session", "", ones),
        ("create_session", "", twos),
        ("start", "", ones),
        ("start", "", twos),
        ("exec", "echo second", twos),
        ("exec", "echo first", ones),
        ("resume_session", "", ones),
        ("exec", "echo first again", ones),
        ("stop", "", twos),
        ("shutdown", "", twos),
        ("stop", "", ones),
        ("shutdown", "", ones),
        ("delete_session", "", twos),
        ("delete_session", "", ones),
    ]
