"""How long an attempt has had, and how long what outlives it may go on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from temporalio.testing import ActivityEnvironment

from sandbox_core.worker import attempts
from sandbox_core.worker.attempts import finished, overdue, timed


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
    async def test_whatever_the_server_takes_the_time_to_be(self, skew_h: int) -> None:
        async def seen() -> list[bool]:
            with timed():
                return [overdue(), await overdue_after(0.3)]

        async def overdue_after(seconds: float) -> bool:
            await asyncio.sleep(seconds)
            return overdue()

        environment = attempt_of(timedelta(seconds=0.75), started=timedelta(hours=skew_h))

        assert [False, True] == await environment.run(seen)


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
