"""Any worker reads a polled process's output by offset, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from agents.sandbox.errors import PtySessionNotFoundError
from agents.sandbox.session.pty_types import PTY_PROCESS_ID_MAX_EXCLUSIVE, PTY_PROCESS_ID_MIN
from processes.driving import (
    Box,
    command,
    polling,
    running,
    second_attempt,
    seen,
    starting,
    turn_helper_off,
)
from temporalio.exceptions import ApplicationError

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.wire.failures import decode_error
from sandbox_core.worker.commands import processes, room


class TestStart:
    @pytest.mark.parametrize(
        "words",
        ["echo out; echo err >&2; exit 3", "exit 137", "printf '\\377\\376x'", "true", "("],
    )
    async def test_what_ends_at_once_is_as_the_backend_has_it(self, box: Box, words: str) -> None:
        plain = await box.session.pty_exec_start(words, yield_time_s=5)

        durable = await box.start(starting(words, wait=30))

        assert plain == durable.update

    async def test_a_signal_is_as_the_backend_has_it(self, local: Box) -> None:
        plain = await local.session.pty_exec_start("kill -9 $$", yield_time_s=5)

        assert plain == (await local.start(starting("kill -9 $$", wait=30))).update

    async def test_output_is_cut_as_the_sdk_cuts_it(self, box: Box) -> None:
        words = "seq 1 3000"
        plain = await box.session.pty_exec_start(words, yield_time_s=5, max_output_tokens=50)

        durable = await box.start(starting(words, wait=30, tokens=50))

        assert plain == durable.update
        assert durable.update.original_token_count is not None

    async def test_asked_again_it_is_the_same_process(self, box: Box) -> None:
        """The response was lost on the way: same process, same output, one run."""
        start = starting("echo run >> runs; echo started; sleep 60", wait=1)

        first = await box.start(start)
        again = await box.start(start)

        assert first.last == again.last
        assert b"started\n" == first.update.output
        assert first.number in range(PTY_PROCESS_ID_MIN, PTY_PROCESS_ID_MAX_EXCLUSIVE)
        assert "run\n" == await box.text("cat runs")

    async def test_asked_again_after_the_end_nothing_is_lost(self, local: Box) -> None:
        start = starting("echo one; until [ -e go ]; do sleep 0.02; done; echo two", wait=1)
        first = await local.start(start)
        await local.text("touch go")

        again = await local.start(start.model_copy(update={"yield_time_s": 30}))

        assert (b"one\n", None) == (first.update.output, first.update.exit_code)
        assert (b"one\ntwo\n", 0) == (again.update.output, again.update.exit_code)

    async def test_eight_at_once_start_one_process(self, box: Box) -> None:
        start = starting("echo run >> runs; echo out; sleep 60", wait=1)

        started = await asyncio.gather(*(box.start(start) for _ in range(8)))

        assert "run\n" == await box.text("cat runs")
        assert 1 == len({process.number for process in started})
        assert {b"out\n"} == {process.update.output for process in started}

    async def test_cancelled_it_is_ended(self, box: Box) -> None:
        asked = asyncio.create_task(box.start(starting("echo $$ > pid; sleep 60", wait=30)))
        pid = int(await box.line("pid"))

        asked.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not running(pid)

    async def test_each_user_has_numbers_of_its_own(self) -> None:
        """Each has a helper that knows nothing of the others."""
        default, root, nobody = map(processes._numbers, (None, "root", "nobody"))

        assert default[1] <= min(root[0], nobody[0])
        assert root != nobody
        assert max(root[1], nobody[1]) <= PTY_PROCESS_ID_MAX_EXCLUSIVE


class TestPoll:
    async def test_output_is_read_by_offset(self, box: Box) -> None:
        """However often it is asked for."""
        words = "for n in 1 2; do echo $n; until [ -e go$n ]; do sleep 0.02; done; done; exit 5"
        process = await box.start(starting(words, wait=1))
        pieces = [process.update.output.decode()]
        for n in (1, 2):
            await box.text(f"touch go{n}; sleep 0.1")
            poll = polling(process.number, offset=process.last.offset)
            process.last = await process.ask(poll)
            again = await process.ask(poll)
            assert process.last == again
            pieces.append(process.update.output.decode())

        assert ["1\n", "2\n", ""] == pieces
        assert (None, 5) == (process.update.process_id, process.update.exit_code)

    async def test_eight_polls_at_once_see_the_same(self, local: Box) -> None:
        process = await local.start(starting("sleep 0.5; seq 1 20000; sleep 0.5"))

        poll = polling(process.number)
        polled = await asyncio.gather(*(process.ask(poll) for _ in range(8)))

        whole = "".join(f"{n}\n" for n in range(1, 20001)).encode()
        assert {whole} == {each.update.output for each in polled}

    async def test_of_too_much_output_the_middle_is_dropped_and_told(
        self, box: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(processes, "KEPT_BYTES", 1000)

        process = await box.start(starting("seq 1 10000", wait=30))
        pieces = await process.to_the_end()

        assert "".join(pieces).startswith("1\n2\n")
        assert "".join(pieces).endswith("9999\n10000\n")
        assert "bytes cut: more than the limit of 1,000 ...]" in "".join(pieces)
        assert len("".join(pieces)) < 1100

    async def test_a_character_is_never_cut(self, box: Box) -> None:
        """As with the SDK, its first bytes wait for the rest."""
        words = "printf 'a\\342'; until [ -e go ]; do sleep 0.02; done; printf '\\202\\254b'"
        process = await box.start(starting(words, wait=1))
        await box.text("touch go")

        assert ["a", "\u20acb"] == await process.to_the_end()

    async def test_after_the_end_was_told_there_is_no_such_process(self, box: Box) -> None:
        process = await box.start(starting("sleep 0.5"))
        number = process.number
        await process.poll()

        with pytest.raises(PtySessionNotFoundError):
            await process.ask(polling(number).model_copy(update={"ended": True}))

    async def test_there_is_no_other_process(self, box: Box) -> None:
        process = await box.start(starting("true", wait=30))

        with pytest.raises(PtySessionNotFoundError):
            await process.ask(polling(4711))

    async def test_it_has_no_stdin(self, box: Box) -> None:
        process = await box.start(starting("sleep 60"))

        with pytest.raises(ApplicationError) as failed:
            await process.poll("x")

        assert failed.value.non_retryable
        decoded = decode_error(failed.value)
        assert isinstance(decoded, RuntimeError)
        assert "stdin is not available for this process" == str(decoded)

    async def test_a_process_that_vanished_is_not_found(self, box: Box) -> None:
        process = await box.start(starting("echo $PPID > keeper; echo out; sleep 60"))
        os.kill(int(await box.line("keeper")), signal.SIGKILL)

        with pytest.raises(PtySessionNotFoundError):
            await process.poll()

    async def test_a_start_that_vanished_is_not_repeated(self, local: Box) -> None:
        start = starting("echo run >> runs; echo $PPID > keeper; sleep 60", wait=30)
        asked = asyncio.create_task(local.start(start))
        os.kill(int(await local.line("keeper")), signal.SIGKILL)

        with pytest.raises(OutcomeUnknown):
            await asked
        with pytest.raises(OutcomeUnknown):
            await local.start(start)

        assert "run\n" == await local.text("cat runs")


class TestTerminals:
    """A process with a terminal is polled and written to like any other."""

    async def test_it_is_written_to(self, box: Box) -> None:
        process = await box.start(starting("read line; echo got $line", tty=True))

        update = await process.poll("it\n", wait=30)

        assert b"it\r\ngot it\r\n" == update.output
        assert 0 == update.exit_code

    async def test_what_is_written_twice_arrives_once(self, box: Box) -> None:
        """The response was lost on the way."""
        process = await box.start(starting("while read line; do echo got $line; done", tty=True))
        write = polling(process.number, "it\n", wait=0.25)

        for _ in range(2):
            polled = await process.ask(write)

        assert b"it\r\ngot it\r\n" == polled.update.output

    async def test_another_worker_attaches_to_it(self, local: Box) -> None:
        """It knows of the session, and nothing of what runs in it."""
        start = starting("read line; echo got $line", tty=True)
        process = await local.start(start)
        helpers = processes._known.pop(local.session)

        async def poll() -> processes.Polled:
            return await process.ask(polling(process.number, "it\n", wait=30))

        polled = await second_attempt().run(poll)

        assert helpers
        assert b"it\r\ngot it\r\n" == polled.update.output

    async def test_its_size_is_set(self, box: Box) -> None:
        process = await box.start(starting("read line; stty size", tty=True))
        resize = m.PtyResizeRequest(
            session=polling(0).session, process_id=process.number or 0, rows=50, columns=132
        )

        await processes.resize(box.provider, box.session, resize)
        update = await process.poll("\n", wait=30)

        assert b"50 132\r\n" in update.output

    async def test_a_large_input_arrives_whole(self, local: Box) -> None:
        """In several requests of the helper's."""
        process = await local.start(
            starting("stty raw -echo; touch ready; head -c 200000 | cksum", tty=True)
        )
        await local.text("until [ -e ready ]; do sleep 0.02; done")

        update = await process.poll("x" * 200_000, wait=30)

        sums = await local.text("head -c 200000 /dev/zero | tr '\\0' x | cksum")
        assert sums.encode() in update.output.replace(b"\r\n", b"\n")

    async def test_without_the_helper_it_is_of_its_worker(
        self, local: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        turn_helper_off(monkeypatch)
        process = await local.start(starting("read line; echo got $line", tty=True))
        assert process.last.offset is None

        async def poll() -> processes.Polled:
            return await process.ask(polling(process.number, "it\n"))

        with pytest.raises(OutcomeUnknown):
            await second_attempt().run(poll)
        assert b"got it" in (await poll()).update.output
        await local.session.pty_terminate_all()


class TestTerminateAll:
    async def test_processes_end_and_commands_do_not(self, box: Box) -> None:
        ran = asyncio.create_task(box.run(command("echo $$ > c; sleep 1; echo out")))
        await box.line("c")
        process = await box.start(starting("echo $$ > pid; sleep 60"))
        pid = int(await box.text("cat pid"))

        await box.terminate_all()

        assert not running(pid)
        with pytest.raises(PtySessionNotFoundError):
            await process.poll()
        assert (b"out\n", b"", 0) == seen(await ran)


class TestRoom:
    """A session has so many processes that run; one more ends the one used longest ago."""

    @pytest.fixture(autouse=True)
    def three(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(room, "PTY_PROCESSES_MAX", 3)
        monkeypatch.setattr(room, "PTY_PROCESSES_PROTECTED_RECENT", 1)

    @pytest.mark.parametrize("used", [0, 1, 2])
    async def test_it_is_not_the_one_that_was_polled(self, local: Box, used: int) -> None:
        started = [await local.start(starting("sleep 60")) for _ in range(3)]
        await started[used].poll(wait=0.25)

        await local.start(starting("sleep 60"))

        states = [await _state(process.number, local) for process in started]
        assert 1 == states.count("ended")
        assert "running" == states[used]

    async def test_the_victims_whole_tree_ends(self, local: Box) -> None:
        await local.start(starting("true; setsid sleep 60 & echo $! $$ > pids; sleep 60"))
        pids = [int(pid) for pid in (await local.line("pids")).split()]

        for _ in range(3):
            await local.start(starting("sleep 60"))

        assert [] == [pid for pid in pids if running(pid)]

    async def test_a_process_that_has_ended_takes_no_room(self, local: Box) -> None:
        first = await local.start(starting("sleep 60"))
        for _ in range(3):
            await local.start(starting("true", wait=30))
        await local.start(starting("sleep 60"))
        await local.start(starting("sleep 60"))

        assert "running" == await _state(first.number, local)


async def _state(number: int | None, box: Box) -> str:
    entries = (await box.ask("list")).entries
    return next(entry.state for entry in entries if entry.number == number)
