"""The retention of records of ended commands."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from processes.driving import Box, command, polling, seen, starting

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.worker.commands import retention


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Two records are kept, however young they are."""
    monkeypatch.setattr(retention, "KEPT", 2)
    monkeypatch.setattr(retention, "KEPT_S", 0)
    monkeypatch.setattr(retention, "KEPT_ALWAYS", 1)
    return monkeypatch


async def run(box: Box, *requests: m.ExecRequest) -> None:
    for request in requests:
        await box.run(request)
        await asyncio.sleep(0.002)  # The helper orders records by the milliseconds of their ends.
    await retention.prune(await box.helper())


async def kept(box: Box, *requests: m.CommandRequest) -> list[bool]:
    states = await box.states()
    return [states.get(request.operation_id) in ("ended", "running") for request in requests]


class TestDropped:
    @pytest.mark.usefixtures("limits")
    async def test_the_oldest_go(self, box: Box) -> None:
        commands = [command(f"echo {n}") for n in range(5)]

        await run(box, *commands)

        assert [False, False, False, True, True] == await kept(box, *commands)

    @pytest.mark.usefixtures("limits")
    async def test_asked_for_it_is_not_run_again(self, box: Box) -> None:
        old = command("echo run >> runs")
        await run(box, old, *(command("true") for _ in range(3)))

        for _ in range(2):
            with pytest.raises(OutcomeUnknown, match=r"its record was pruned.*not repeated"):
                await box.run(old)

        assert "run\n" == await box.text("cat runs")

    @pytest.mark.usefixtures("limits")
    async def test_a_process_is_not_started_again(self, local: Box) -> None:
        old = starting("echo run >> runs", wait=30)
        await local.start(old)
        await run(local, *(command("true") for _ in range(3)))

        with pytest.raises(OutcomeUnknown, match="its record was pruned"):
            await local.start(old)

        assert "run\n" == await local.text("cat runs")

    async def test_beyond_the_size_even_the_young_go(
        self, local: Box, limits: pytest.MonkeyPatch
    ) -> None:
        limits.setattr(retention, "KEPT_S", 3600)
        limits.setattr(retention, "KEPT_BYTES", 1000)
        commands = [command(f"head -c {size} /dev/zero") for size in (1, 600, 300, 300)]

        await run(local, *commands)

        assert [False, False, True, True] == await kept(local, *commands)


class TestKept:
    async def test_the_young_are(self, local: Box, limits: pytest.MonkeyPatch) -> None:
        limits.setattr(retention, "KEPT_S", 3600)
        commands = [command(f"echo {n}") for n in range(6)]

        await run(local, *commands)

        assert [True] * 6 == await kept(local, *commands)
        assert (b"0\n", b"", 0) == seen(await local.run(commands[0]))

    async def test_the_newest_are_whatever_their_size(
        self, local: Box, limits: pytest.MonkeyPatch
    ) -> None:
        limits.setattr(retention, "KEPT_BYTES", 0)
        limits.setattr(retention, "KEPT_ALWAYS", 3)
        commands = [command("head -c 1000 /dev/zero") for _ in range(4)]

        await run(local, *commands)

        assert [False, True, True, True] == await kept(local, *commands)

    async def test_what_runs_is(self, local: Box, limits: pytest.MonkeyPatch) -> None:
        kept_bytes = retention.KEPT_BYTES
        limits.setattr(retention, "KEPT_BYTES", 0)
        words = "echo > running; until [ -e go ]; do sleep 0.01; done; echo out"
        ran = asyncio.create_task(local.run(command(words)))
        await local.line("running")
        polled = await local.start(starting("until [ -e go ]; do sleep 0.01; done; echo end"))

        await run(local, *(command("echo x") for _ in range(3)))
        # What has ended may be dropped by the prune after the next command.
        limits.setattr(retention, "KEPT_BYTES", kept_bytes)
        await local.text("touch go")

        assert (b"out\n", b"", 0) == seen(await ran)
        assert b"end\n" == (await polled.ask(polling(polled.number))).update.output


class TestWhen:
    """A share of the commands prunes, so that the others cost nothing more."""

    def due(self, box: Box, count: int, output: int = 0) -> list[int]:
        """Which of the next commands prune."""
        return [n for n in range(count) if retention.is_due(box.session, "somebody", output)]

    async def test_the_first_and_then_less_and_less_often(self, local: Box) -> None:
        due = self.due(local, 10_000)

        assert [0, 65, 130] == due[:3]
        assert all(last + last // 10 < next_ for last, next_ in pairwise(due[-5:]))
        assert len(due) < 50

    async def test_much_output_does(self, local: Box) -> None:
        assert [0, 4, 8] == self.due(local, 10, 16 * 1024 * 1024)

    async def test_each_user_has_its_own(self, local: Box) -> None:
        assert [0] == self.due(local, 10)
        assert retention.is_due(local.session, "another")
