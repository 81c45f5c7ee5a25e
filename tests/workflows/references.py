"""Workflows with large payloads in the storage, and the activity of one of them."""

from __future__ import annotations

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError


def large(name: str) -> str:
    """Return a text that goes to a storage wherever it belongs: Temporal would refuse it."""
    return name.ljust(2_100_000, ".")


@workflow.defn
class Holder:
    """Holds its input until it is told to finish, and returns another text."""

    def __init__(self) -> None:
        self._finished = False

    @workflow.run
    async def run(self, text: str) -> str:
        await workflow.wait_condition(lambda: self._finished)
        return large(f"result of {text.rstrip('.')}")

    @workflow.signal
    def finish(self) -> None:
        """End the workflow."""
        self._finished = True


@activity.defn
async def fail_after_heartbeat(name: str) -> str:
    """Fail, with details of both kinds; a later attempt returns what the heartbeat said."""
    details = activity.info().heartbeat_details
    if details:
        return str(details[0]).rstrip(".")
    activity.heartbeat(large(f"heartbeat of {name}"))
    raise ApplicationError("not yet", large(f"failure of {name}"))


@workflow.defn
class Waiting:
    """Waits for an activity that is to be tried again, in an hour or when it is reset."""

    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(
            fail_after_heartbeat,
            name,
            start_to_close_timeout=timedelta(minutes=1),
            retry_policy=RetryPolicy(initial_interval=timedelta(hours=1)),
        )
