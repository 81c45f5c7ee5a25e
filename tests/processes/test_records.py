"""What commands leave behind is bounded, and a command whose record is gone is not run again."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult
from processes.test_exec import command, folder, seen, text, wait_for_line
from processes.test_pty import polling, starting

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.worker.commands import processes
from sandbox_core.worker.commands import retention as records


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Prune after every command, keep two, or one that is large, and nothing for its age."""
    for name, value in (("KEPT", 2), ("KEPT_S", 0), ("KEPT_ALWAYS", 1), ("_EVERY", 1)):
        monkeypatch.setattr(records, name, value)
    return monkeypatch


async def pruned(session: SandboxSession) -> None:
    """Wait until nothing is at work in the folder of the records; descriptor 9 shows it."""
    prefix = f"{folder(session)}/"
    at_work = f"ls -l /proc/[0-9]*/fd/9 2>/dev/null | grep -F ' -> {prefix}'"
    await text(session, f"while {at_work}; do sleep 0.01; done")


async def run(session: SandboxSession, *commands: m.ExecRequest) -> None:
    for one in commands:
        await processes.run(session, one)
        await pruned(session)


async def kept(
    session: SandboxSession, *commands: m.ExecRequest | m.PtyExecStartRequest
) -> list[bool]:
    """Of which of the commands there is more than a mark."""
    names = await text(session, f"ls {folder(session)}")
    return [one.operation_id in names for one in commands]


class TestPruned:
    async def test_beyond_the_newest_the_oldest_go(
        self, session: SandboxSession, limits: pytest.MonkeyPatch
    ) -> None:
        commands = [command("echo out; echo err >&2") for _ in range(3)]
        await run(session, *commands)
        await text(session, "sleep 0.02")  # An age of nothing at all is no age.

        last = [command("true"), command("true")]
        await run(session, *last)

        assert [False, False, False, True, True] == await kept(session, *commands, *last)

    @pytest.mark.usefixtures("limits")
    async def test_asked_for_it_is_not_run_again(self, session: SandboxSession) -> None:
        old = command("echo run >> runs")
        await run(session, old, *(command("sleep 0.02") for _ in range(3)))
        assert [False] == await kept(session, old)

        for _ in range(2):
            with pytest.raises(OutcomeUnknown, match=r"its record was pruned.*not repeated"):
                await processes.run(session, old)

        assert "run\n" == await text(session, "cat runs")

    @pytest.mark.usefixtures("limits")
    async def test_a_process_whose_end_was_told_goes_and_is_not_started_again(
        self, local: SandboxSession
    ) -> None:
        old = starting("echo run >> runs", wait=5)
        await processes.start(local, old)
        await run(local, *(command("sleep 0.02") for _ in range(3)))
        assert [False] == await kept(local, old)
        assert [] == list(folder(local).glob("p[0-9]*"))

        with pytest.raises(OutcomeUnknown, match="its record was pruned"):
            await processes.start(local, old)

        assert "run\n" == await text(local, "cat runs")

    async def test_beyond_the_size_even_the_young_go(
        self, local: SandboxSession, limits: pytest.MonkeyPatch
    ) -> None:
        limits.setattr(records, "KEPT_S", 3600)
        limits.setattr(records, "KEPT_BYTES", 1000)
        commands = [command(f"head -c {size} /dev/zero") for size in (1, 600, 300, 300)]

        await run(local, *commands)

        assert [False, False, True, True] == await kept(local, *commands)

    @pytest.mark.usefixtures("other_shell")
    async def test_in_other_shells(self, local: SandboxSession, limits: pytest.MonkeyPatch) -> None:
        limits.setattr(records, "KEPT_BYTES", 1000)
        old = command("echo run >> runs; head -c 2000 /dev/zero >&2")

        await run(local, old, command("sleep 1.1"))  # busybox tells ages by the second.

        assert [False] == await kept(local, old)
        with pytest.raises(OutcomeUnknown, match="its record was pruned"):
            await processes.run(local, old)
        assert "run\n" == await text(local, "cat runs")


class TestKept:
    async def test_the_young_are(self, local: SandboxSession, limits: pytest.MonkeyPatch) -> None:
        limits.setattr(records, "KEPT_S", 3600)
        commands = [command(f"echo {n}") for n in range(6)]

        await run(local, *commands)

        assert [True] * 6 == await kept(local, *commands)
        assert (b"0\n", b"", 0) == seen(await processes.run(local, commands[0]))

    async def test_the_newest_are_whatever_their_size(
        self, local: SandboxSession, limits: pytest.MonkeyPatch
    ) -> None:
        limits.setattr(records, "KEPT_BYTES", 0)
        limits.setattr(records, "KEPT_ALWAYS", 3)
        commands = [command("head -c 1000 /dev/zero") for _ in range(4)]

        await run(local, *commands)

        assert [False, True, True, True] == await kept(local, *commands)

    async def test_what_runs_and_what_is_polled_are(
        self, local: SandboxSession, limits: pytest.MonkeyPatch
    ) -> None:
        """The end of a process is told, however long nobody asks for it."""
        limits.setattr(records, "KEPT_BYTES", 0)
        running = command("echo > running; until [ -e go ]; do sleep 0.01; done; echo out")
        ran = asyncio.create_task(processes.run(local, running))
        await text(local, "until [ -e running ]; do sleep 0.01; done")
        polled = starting("until [ -e polled ]; do sleep 0.01; done; echo > end; echo out; exit 3")
        update = await processes.start(local, polled)
        await local.exec("touch polled")
        await wait_for_line(local, "end")

        for _ in range(3):
            await processes.run(local, command("echo x"))
        await local.exec("touch go")

        assert (b"out\n", b"", 0) == seen(await ran)
        update = await processes.write(local, polling(update.process_id))
        assert (b"out\n", 3) == (update.output, update.exit_code)

    async def test_the_folder_goes_with_the_session_while_it_is_pruned(
        self, local: SandboxSession, limits: pytest.MonkeyPatch
    ) -> None:
        limits.setattr(records, "KEPT_BYTES", 0)
        for _ in range(5):
            await processes.run(local, command("echo x"))

        assert await processes.forget(local)

        assert not folder(local).exists()


class TestWhen:
    """A share of the commands prunes, so that the others cost nothing more."""

    def due(self, session: SandboxSession, count: int, output: int = 0) -> list[int]:
        """Which of the next commands prune."""
        result = ExecResult(stdout=bytes(output), stderr=b"", exit_code=0)
        found = []
        for number in range(count):
            if records.to_prune(session, "folder") != "-":
                found.append(number)
            records.add_output(session, "folder", result)
        return found

    async def test_the_first_and_then_ever_more_rarely(self, local: SandboxSession) -> None:
        due = self.due(local, 10_000)

        assert [0, 65, 130] == due[:3]
        assert all(last + last // 10 < next_ for last, next_ in pairwise(due[-5:]))
        assert len(due) < 50

    async def test_much_output_does(self, local: SandboxSession) -> None:
        assert [0, 4, 8] == self.due(local, 10, 16 * 1024 * 1024)

    async def test_each_folder_has_its_own(self, local: SandboxSession) -> None:
        assert [0] == self.due(local, 10)
        assert "64 3600 268435456 8" == records.to_prune(local, "another")
