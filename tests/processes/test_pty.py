"""A process that is polled: its output is delivered exactly once, to whoever polls from where."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid

import pytest
from agents.sandbox.errors import PtySessionNotFoundError
from agents.sandbox.sandboxes import unix_local
from agents.sandbox.session import pty_types
from agents.sandbox.session.pty_types import (
    PTY_PROCESS_ID_MAX_EXCLUSIVE,
    PTY_PROCESS_ID_MIN,
    PtyExecUpdate,
)
from agents.sandbox.session.sandbox_session import SandboxSession
from processes.test_exec import folder, running, second_attempt, seen, text, wait_for_line
from temporalio.exceptions import ApplicationError

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.wire.failures import decode_error
from sandbox_core.worker.commands import processes

REF = m.SessionRef(session_id="unused", epoch=1)


def starting(
    *words: str,
    wait: float = 0.25,
    tokens: int | None = None,
    operation_id: str | None = None,
    tty: bool = False,
) -> m.PtyExecStartRequest:
    return m.PtyExecStartRequest(
        session=REF,
        operation_id=operation_id or uuid.uuid4().hex,
        command=words,
        yield_time_s=wait,
        max_output_tokens=tokens,
        tty=tty,
    )


def polling(process_id: int | None, chars: str = "") -> m.PtyWriteStdinRequest:
    return m.PtyWriteStdinRequest(
        session=REF, operation_id=uuid.uuid4().hex, process_id=process_id or 0, chars=chars
    )


async def lines_until_end(session: SandboxSession, update: PtyExecUpdate) -> list[str]:
    """Each piece of output, as it is polled to the end."""
    pieces = [update.output.decode()]
    while update.process_id is not None:
        update = await processes.write(session, polling(update.process_id))
        pieces.append(update.output.decode())
    return pieces


class TestStart:
    @pytest.mark.parametrize(
        "words",
        ["echo out; echo err >&2; exit 3", "kill -9 $$", "printf '\\377\\376x'", "true", "("],
    )
    async def test_what_ends_at_once_is_as_the_backend_has_it(
        self, session: SandboxSession, words: str
    ) -> None:
        plain = await session.pty_exec_start(words, yield_time_s=5)

        durable = await processes.start(session, starting(words, wait=5))

        assert plain == durable

    async def test_output_is_cut_as_the_sdk_cuts_it(self, local: SandboxSession) -> None:
        words = "seq 1 3000"
        plain = await local.pty_exec_start(words, yield_time_s=5, max_output_tokens=50)

        durable = await processes.start(local, starting(words, wait=5, tokens=50))

        assert plain == durable
        assert durable.original_token_count is not None

    async def test_asked_again_it_is_the_same_process(self, session: SandboxSession) -> None:
        """The response was lost on the way: same process, same output, one run."""
        start = starting("echo run >> runs; echo started; sleep 60")

        first = await processes.start(session, start)
        again = await processes.start(session, start)

        assert first == again
        assert b"started\n" == first.output
        assert first.process_id in range(PTY_PROCESS_ID_MIN, PTY_PROCESS_ID_MAX_EXCLUSIVE)
        assert "run\n" == await text(session, "cat runs")

    async def test_asked_again_after_the_end_the_first_output_comes_first(
        self, local: SandboxSession
    ) -> None:
        start = starting("echo one; until [ -e go ]; do sleep 0.02; done; echo two")
        first = await processes.start(local, start)
        await local.exec("touch go; sleep 0.3")

        again = await processes.start(local, start)

        assert first == again
        assert ["one\n", "two\n"] == await lines_until_end(local, again)

    async def test_eight_at_once_start_one_process(self, local: SandboxSession) -> None:
        start = starting("echo run >> runs; echo out; sleep 60")

        updates = await asyncio.gather(*(processes.start(local, start) for _ in range(8)))

        assert "run\n" == await text(local, "cat runs")
        assert 1 == len({update.process_id for update in updates})
        assert {b"out\n"} == {update.output for update in updates}

    async def test_two_with_one_number_get_two(
        self, local: SandboxSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("zlib.crc32", lambda data: 98_999)

        first = await processes.start(local, starting("echo a; sleep 60"))
        second = await processes.start(local, starting("echo b; sleep 60"))

        assert (99_999, 1000) == (first.process_id, second.process_id)

    @pytest.mark.parametrize(("written", "expected"), [(True, 99_999), (False, 1000)])
    async def test_a_number_that_is_being_taken_is_waited_for(
        self,
        local: SandboxSession,
        monkeypatch: pytest.MonkeyPatch,
        written: bool,
        expected: int,
    ) -> None:
        """By another attempt at the same, which has made the file only; it may be dead."""
        await processes.start(local, starting("true"))
        monkeypatch.setattr("zlib.crc32", lambda data: 98_999)
        request, number = starting("sleep 60"), folder(local) / "p99999"
        number.touch()

        asked = asyncio.create_task(processes.start(local, request))
        await asyncio.sleep(0.3)  # It has come to the file by then, or finds it written.
        if written:
            number.write_text(f"{request.operation_id}\n")

        assert expected == (await asked).process_id

    async def test_cancelled_it_is_ended(self, local: SandboxSession) -> None:
        asked = asyncio.create_task(
            processes.start(local, starting("echo $$ > pid; sleep 60", wait=30))
        )
        pid = int(await wait_for_line(local, "pid"))

        asked.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not running(pid)


class TestPoll:
    async def test_output_is_delivered_once(self, session: SandboxSession) -> None:
        words = "for n in 1 2 3; do echo $n; until [ -e go$n ]; do sleep 0.02; done; done; exit 5"
        update = await processes.start(session, starting(words))
        pieces = [update.output.decode()]
        for n in (1, 2, 3):
            await session.exec(f"touch go{n}; sleep 0.1")
            poll = polling(update.process_id)
            if n < 3:
                poll = poll.model_copy(update={"chars": ""})
            update = await processes.write(session, poll)
            again = await processes.write(session, poll)
            assert update == again
            pieces.append(update.output.decode())

        assert ["1\n", "2\n", "3\n", ""] == pieces
        assert (None, 5) == (update.process_id, update.exit_code)

    async def test_eight_polls_at_once_share_the_output(self, local: SandboxSession) -> None:
        update = await processes.start(local, starting("sleep 0.5; seq 1 20000; sleep 2"))

        polled = await asyncio.gather(
            *(processes.write(local, polling(update.process_id)) for _ in range(8)),
            return_exceptions=True,
        )

        outputs = [piece.output for piece in polled if isinstance(piece, PtyExecUpdate)]
        assert "".join(f"{n}\n" for n in range(1, 20001)).encode() == b"".join(outputs)
        assert 1 == len([output for output in outputs if output])
        for piece in polled:
            if not isinstance(piece, PtyExecUpdate):
                assert isinstance(piece, ApplicationError)
                assert isinstance(decode_error(piece), PtySessionNotFoundError)

    async def test_a_character_is_never_cut(self, local: SandboxSession) -> None:
        """As with the SDK, its first bytes wait for the rest."""
        words = "printf 'a\\342'; until [ -e go ]; do sleep 0.02; done; printf '\\202\\254b'"
        update = await processes.start(local, starting(words))
        await local.exec("touch go")

        assert ["a", "\u20acb"] == await lines_until_end(local, update)

    async def test_after_the_end_there_is_no_such_process(self, session: SandboxSession) -> None:
        update = await processes.start(session, starting("sleep 0.5"))
        await processes.write(session, polling(update.process_id))

        with pytest.raises(ApplicationError) as failed:
            await processes.write(session, polling(update.process_id))

        assert failed.value.non_retryable
        assert isinstance(decode_error(failed.value), PtySessionNotFoundError)

    async def test_it_has_no_stdin(self, session: SandboxSession) -> None:
        update = await processes.start(session, starting("sleep 60"))

        with pytest.raises(ApplicationError) as failed:
            await processes.write(session, polling(update.process_id, "x"))

        assert failed.value.non_retryable
        decoded = decode_error(failed.value)
        assert isinstance(decoded, RuntimeError)
        assert "stdin is not available for this process" == str(decoded)

    async def test_a_process_that_vanished_is_not_found(self, local: SandboxSession) -> None:
        start = starting("echo $PPID > runner; echo out; sleep 60")
        update = await processes.start(local, start)
        os.killpg(os.getpgid(int(await text(local, "cat runner"))), signal.SIGKILL)

        with pytest.raises(PtySessionNotFoundError):
            await processes.write(local, polling(update.process_id))

    async def test_a_start_that_vanished_is_not_repeated(self, local: SandboxSession) -> None:
        start = starting("echo run >> runs; echo $PPID > runner; sleep 60", wait=30)
        asked = asyncio.create_task(processes.start(local, start))
        os.killpg(os.getpgid(int(await wait_for_line(local, "runner"))), signal.SIGKILL)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

        with pytest.raises(OutcomeUnknown):
            await processes.start(local, start)

        assert "run\n" == await text(local, "cat runs")


class TestTerminals:
    """A process with a terminal stays the backend's own."""

    async def test_it_is_written_to(self, local: SandboxSession) -> None:
        update = await processes.start(local, starting("read line; echo got $line", tty=True))

        written = await processes.write(local, polling(update.process_id, "it\n"))

        assert b"got it" in written.output

    async def test_a_second_attempt_is_refused(self, local: SandboxSession) -> None:
        update = await processes.start(local, starting("cat", tty=True))

        with pytest.raises(OutcomeUnknown):
            await second_attempt().run(processes.start, local, starting("cat", tty=True))
        with pytest.raises(OutcomeUnknown):
            await second_attempt().run(processes.write, local, polling(update.process_id, "it\n"))
        await local.pty_terminate_all()


class TestTerminateAll:
    async def test_processes_end_and_commands_do_not(self, local: SandboxSession) -> None:
        command = m.ExecRequest(
            session=REF, operation_id=uuid.uuid4().hex, command=("echo $$ > c; sleep 1; echo out",)
        )
        ran = asyncio.create_task(processes.run(local, command))
        await wait_for_line(local, "c")
        update = await processes.start(local, starting("echo $$ > pid; sleep 60"))
        pid = int(await text(local, "cat pid"))

        await processes.terminate_all(local)

        assert not running(pid)
        with pytest.raises(ApplicationError) as failed:
            await processes.write(local, polling(update.process_id))
        assert isinstance(decode_error(failed.value), PtySessionNotFoundError)
        assert (b"out\n", b"", 0) == seen(await ran)
        assert folder(local).exists()


class TestRoom:
    """A session has so many open processes; one more ends the one that the SDK would have ended."""

    @pytest.fixture
    def three(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "PTY_PROCESSES_MAX", 3)
        monkeypatch.setattr(processes, "PTY_PROCESSES_PROTECTED_RECENT", 1)
        monkeypatch.setattr(unix_local, "PTY_PROCESSES_MAX", 3)
        monkeypatch.setattr(pty_types, "PTY_PROCESSES_PROTECTED_RECENT", 1)
        monkeypatch.setattr(pty_types, "PTY_EMPTY_YIELD_TIME_MS_MIN", 250)

    @pytest.mark.usefixtures("three")
    @pytest.mark.parametrize("first", [0, 1, 2])
    @pytest.mark.parametrize("ends", [False, True], ids=["running", "ended"])
    async def test_the_victim_is_the_sdks(
        self, local: SandboxSession, first: int, ends: bool
    ) -> None:
        """The one used longest ago, but rather one that has ended, which nobody was told."""
        words = "until [ -e go ]; do sleep 0.02; done", "sleep 60", "sleep 60", "sleep 60"

        async def plain(number: int) -> PtyExecUpdate:
            return await local.pty_exec_start(words[number], yield_time_s=0.25)

        async def durable(number: int) -> PtyExecUpdate:
            return await processes.start(local, starting(words[number]))

        async def poll_plain(process_id: int | None) -> PtyExecUpdate:
            return await local.pty_write_stdin(session_id=process_id or 0, chars="")

        async def poll_durable(process_id: int | None) -> PtyExecUpdate:
            return await processes.write(local, polling(process_id))

        found = []
        for begin, poll in ((plain, poll_plain), (durable, poll_durable)):
            started = [(await begin(number)).process_id for number in range(3)]
            assert (await poll(started[first])).process_id == started[first]
            if ends:
                await local.exec("touch go; sleep 0.2")
            started.append((await begin(3)).process_id)
            answers = await asyncio.gather(*map(poll, started), return_exceptions=True)
            found.append([_shown(answer) for answer in answers])
            await local.exec("rm -f go")
            await local.pty_terminate_all()
            await processes.terminate_all(local)

        assert found[0] == found[1]
        assert 1 == found[1].count("not found")

    @pytest.mark.usefixtures("three")
    async def test_the_victims_whole_tree_ends(self, local: SandboxSession) -> None:
        await processes.start(local, starting("setsid sleep 60 & echo $! $$ > pids; sleep 60"))
        pids = [int(pid) for pid in (await wait_for_line(local, "pids")).split()]

        for _ in range(3):
            await processes.start(local, starting("sleep 60"))

        assert [] == [pid for pid in pids if running(pid)]

    @pytest.mark.usefixtures("three")
    async def test_a_process_whose_end_was_told_takes_no_room(self, local: SandboxSession) -> None:
        first = await processes.start(local, starting("sleep 60"))
        for _ in range(3):
            await processes.start(local, starting("true", wait=5))
        await processes.start(local, starting("sleep 60"))
        await processes.start(local, starting("sleep 60"))

        assert "running" == _shown(await processes.write(local, polling(first.process_id)))

    @pytest.mark.usefixtures("three")
    async def test_asked_again_nothing_is_ended(self, local: SandboxSession) -> None:
        starts = [starting("sleep 60") for _ in range(3)]
        started = [await processes.start(local, start) for start in starts]

        again = [await processes.start(local, start) for start in starts]

        assert started == again
        for update in started:
            assert "running" == _shown(await processes.write(local, polling(update.process_id)))

    @pytest.mark.usefixtures("three", "other_shell")
    async def test_in_other_shells(self, local: SandboxSession) -> None:
        first = await processes.start(local, starting("sleep 60"))
        await text(local, "sleep 1.1")  # busybox tells ages by the second.

        for _ in range(3):
            await processes.start(local, starting("sleep 60"))

        with pytest.raises(ApplicationError) as failed:
            await processes.write(local, polling(first.process_id))
        assert isinstance(decode_error(failed.value), PtySessionNotFoundError)


def _shown(answer: PtyExecUpdate | BaseException) -> str:
    if isinstance(answer, PtyExecUpdate):
        return "running" if answer.process_id is not None else f"exit {answer.exit_code}"
    error = decode_error(answer) if isinstance(answer, ApplicationError) else answer
    assert isinstance(error, PtySessionNotFoundError)
    return "not found"
