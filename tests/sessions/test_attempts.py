"""An attempt's elapsed time, its marks for later ones, and the limit on work that outlives it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from processes.driving import REF
from support import unique
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Worker

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.worker import attempts
from sandbox_core.worker.attempts import finished, overdue, timed
from sandbox_core.worker.commands.plain import refuse_if_noted
from sandbox_core.worker.heartbeats import (
    heartbeats,
    tell_later_attempts,
    tell_with_heartbeats,
    told,
)

pytestmark = pytest.mark.any_sdk


def attempt_of(start_to_close: timedelta, *, started: timedelta) -> ActivityEnvironment:
    """Return an attempt that began at a time from now by the server's clock."""
    environment = ActivityEnvironment()
    environment.info = replace(
        environment.info,
        started_time=datetime.now(timezone.utc) + started,
        start_to_close_timeout=start_to_close,
    )
    return environment


class TestOverdue:
    @pytest.mark.parametrize("skew_h", [-1, 0, 1])
    async def test_does_not_depend_on_the_servers_clock(self, skew_h: int) -> None:
        async def seen() -> list[bool]:
            with timed():
                return [overdue(), await overdue_after(0.3)]

        async def overdue_after(seconds: float) -> bool:
            await asyncio.sleep(seconds)
            return overdue()

        environment = attempt_of(timedelta(seconds=0.75), started=timedelta(hours=skew_h))

        assert [False, True] == await environment.run(seen)


@activity.defn
async def mark() -> bool:
    """Leave marks and fail twice; the third attempt returns whether it was told of them."""
    if activity.info().attempt > 2:
        return told("done") and told("along") and not told("something else")
    with heartbeats():
        if activity.info().attempt == 1:
            await tell_later_attempts("done")
            tell_with_heartbeats("along")
        await asyncio.sleep(1)  # Heartbeats that come later take nothing of it away.
        raise RuntimeError


@workflow.defn(sandboxed=False)
class Mark:
    """Has the activity attempted three times."""

    @workflow.run
    async def run(self) -> bool:
        return await workflow.execute_activity(
            mark,
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=0.9),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
        )


class TestMark:
    async def test_is_told_to_later_attempts(self, temporal_client: Client) -> None:
        queue = unique("queue")
        interval = timedelta(seconds=0.1)
        async with Worker(
            temporal_client,
            task_queue=queue,
            workflows=[Mark],
            activities=[mark],
            max_heartbeat_throttle_interval=interval,
        ):
            assert await temporal_client.execute_workflow(
                Mark.run, id=unique("mark"), task_queue=queue
            )

    @pytest.mark.parametrize("kind", [m.ExecRequest, m.PtyExecStartRequest])
    async def test_of_a_command_without_the_helper_keeps_it_from_running_again(
        self, kind: type[m.ExecRequest | m.PtyExecStartRequest]
    ) -> None:
        environment = ActivityEnvironment()
        environment.info = replace(
            environment.info, attempt=2, heartbeat_details=["without the helper"]
        )
        request = kind(session=REF, operation_id="k", command=("true",))

        async def attempted() -> None:
            refuse_if_noted(request)

        refuse_if_noted(request)
        with pytest.raises(OutcomeUnknown, match="'true' may or may not have run"):
            await environment.run(attempted)


class TestWhatOutlivesAnAttempt:
    async def test_has_its_time(self) -> None:
        assert await finished(asyncio.sleep(0), within_s=20)
        assert not await finished(asyncio.Event().wait(), within_s=0.01)

    async def test_has_less_when_its_worker_shuts_down(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(attempts, "_SHUTDOWN_S", 0.1)
        environment = ActivityEnvironment()
        begun = asyncio.Event()

        async def hang() -> None:
            begun.set()
            await asyncio.Event().wait()

        async def activity() -> bool:
            return await finished(hang(), within_s=3600)

        running = asyncio.ensure_future(environment.run(activity))
        await begun.wait()
        environment.worker_shutdown()

        assert not await asyncio.wait_for(running, 20)

    async def test_says_what_it_failed_with(self) -> None:
        async def fail() -> None:
            raise ConnectionError("no")

        with pytest.raises(ConnectionError):
            await finished(fail(), within_s=20)
