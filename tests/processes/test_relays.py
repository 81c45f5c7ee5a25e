"""Commands whose requests go through a relay, and what becomes of them when that fails."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from agents.sandbox.errors import ExecTransportError
from agents.sandbox.types import ExecResult
from processes.driving import Box, command, second_attempt, seen, starting
from processes.streamed import PipeStream, Streamed
from support import until

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.worker.commands import relay, relays
from sandbox_core.worker.commands.helper import close_helpers
from sandbox_core.worker.sdk_session import backend_session

WAITING = "echo run >> runs; until [ -e go ]; do sleep 0.02; done; echo out; exit 3"
RAN = (b"out\n", b"", 3)
SOON_S = 60


def streams_of(box: Box) -> list[PipeStream]:
    assert isinstance(box.provider, Streamed)
    return box.provider.streams


async def the_stream(box: Box) -> PipeStream:
    """The stream of the relay, which the first command opens."""
    await box.exec("true")
    (stream,) = streams_of(box)
    return stream


@pytest.fixture
def calls(streamed: Box, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The verbs of the helper that were asked through `exec`."""
    made: list[str] = []
    inner = backend_session(streamed.session)
    real = inner.exec

    async def exec_(*words: str, **settings: object) -> object:
        if "sandbox-helper" in words[0] and words[1] != "prune":
            made.append(words[1])
        return await real(*words, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(inner, "exec", exec_)
    return made


async def paused_in_a_command(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> tuple[PipeStream, asyncio.Task[ExecResult]]:
    """The stream of a relay that is stopped while a command runs, and the command."""
    stream = await the_stream(box)
    asked = asyncio.create_task(box.exec(WAITING))
    await box.exec("until [ -e runs ]; do sleep 0.02; done")
    await box.exec("true")  # It follows the first, which has been passed on, then.
    monkeypatch.setattr(relay, "PATIENCE_S", 0.5)
    stream.signal(signal.SIGSTOP)
    return stream, asked


async def ended(process: PipeStream) -> int:
    return await asyncio.wait_for(process.process.wait(), SOON_S)


class TestRequests:
    async def test_no_command_is_a_call_of_the_backend(
        self, streamed: Box, calls: list[str]
    ) -> None:
        assert (b"a\n", b"b\n", 3) == seen(await streamed.exec("echo a; echo b >&2; exit 3"))
        process = await streamed.start(starting("sleep 0.1; echo polled"))

        assert "polled\n" == "".join(await process.to_the_end())
        assert [] == calls
        assert 1 == len(streams_of(streamed))

    async def test_fifty_at_once(self, streamed: Box, calls: list[str]) -> None:
        wait = "until [ -e go ]; do sleep 0.1; done"
        asked = [asyncio.create_task(streamed.exec(f"{wait}; echo {n}")) for n in range(50)]
        await streamed.exec("touch go")

        assert [b"%d\n" % n for n in range(50)] == [(await each).stdout for each in asked]
        assert [] == calls
        assert 1 == len(streams_of(streamed))

    async def test_more_than_a_relay_takes_go_through_exec(
        self, streamed: Box, calls: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay, "MOST", 1)
        asked = asyncio.create_task(streamed.exec(WAITING))
        await streamed.line("runs")

        assert RAN == seen(await streamed.exec("touch go; echo out; exit 3"))
        assert RAN == seen(await asked)
        assert "run" in calls

    async def test_five_megabytes(self, streamed: Box, calls: list[str]) -> None:
        script = "head -c 5000000 /dev/zero | tr '\\0' x"
        words = [("arg", word) for word in ("sh", "-c", script)]
        answer = await streamed.ask(
            "run", ("key", "k"), ("wait", 9000), ("out_max", 5_000_000), *words
        )

        assert b"x" * 5_000_000 == answer.fields["out"]
        assert [] == calls

    async def test_a_signal_is_reported_by_the_backend(
        self, streamed: Box, calls: list[str]
    ) -> None:
        """In its own way, which only it knows."""
        script = "echo run >> runs; kill -9 $$"
        expected = await streamed.plain("kill -9 $$")

        assert expected.exit_code == (await streamed.exec(script)).exit_code
        assert ["run"] == calls
        assert "run\n" == await streamed.text("cat runs")

    async def test_a_cancelled_command_is_ended(self, streamed: Box, calls: list[str]) -> None:
        asked = asyncio.create_task(streamed.exec("echo $$ > pid; exec sleep 60"))
        pid = int(await streamed.line("pid"))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert [] == calls
        assert RAN == seen(await streamed.exec("echo out; exit 3"))


class TestFaults:
    """Whatever happens to a relay, each command runs once, and is answered."""

    async def test_killed_in_the_middle_of_a_command(self, streamed: Box, calls: list[str]) -> None:
        killed = await the_stream(streamed)
        asked = asyncio.create_task(streamed.exec(WAITING))
        await streamed.line("runs")
        await streamed.exec("true")  # It follows the first, which has been passed on, then.
        killed.signal(signal.SIGKILL)
        await ended(killed)

        async def has_been_asked_again() -> bool:
            return bool(calls)

        await until(has_been_asked_again)  # The end of its output may be read after its own.

        assert b"again\n" == (await streamed.exec("touch go; echo again")).stdout
        assert RAN == seen(await asked)
        assert "run\n" == await streamed.text("cat runs")
        assert ["run"] == calls
        assert 2 == len(streams_of(streamed))

    async def test_the_resident_is_killed(self, streamed: Box) -> None:
        """The next one does not know what commands of the relay inherit."""
        first = await the_stream(streamed)
        asked = asyncio.create_task(streamed.exec(WAITING))
        await streamed.line("runs")
        os.kill((await streamed.ask("ping")).number("pid"), signal.SIGKILL)

        assert b"hello world\n" == (await streamed.exec("touch go; echo $GREETING")).stdout
        assert RAN == seen(await asked)
        assert b"hello world\n" == (await streamed.exec("echo $GREETING")).stdout
        assert "run\n" == await streamed.text("cat runs")
        assert 0 == await ended(first)

    async def test_a_request_that_reached_a_paused_sandbox_is_not_carried_out_later(
        self, streamed: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for it any more; what was under way goes on."""
        monkeypatch.setattr(relay, "FRESH_S", 60)
        paused, asked = await paused_in_a_command(streamed, monkeypatch)
        lost = command("echo again >> runs")
        with monkeypatch.context() as without:
            without.setattr(backend_session(streamed.session), "exec", _refuse)
            without.setattr(streamed.provider, "open_stream", _refuse)
            with pytest.raises(ExecTransportError, match="is paused"):
                await streamed.run(lost)
            # No other attempt would ask for it.
            with pytest.raises(OutcomeUnknown, match="may or may not have run"):
                await second_attempt("unanswered").run(streamed.run, lost)
            process = starting("true")
            with pytest.raises(OutcomeUnknown, match="may or may not have run"):
                await second_attempt("unanswered").run(streamed.start, process)
            with pytest.raises(ExecTransportError, match="is paused"):
                await second_attempt().run(streamed.run, command("true"))
        assert not asked.done()
        paused.signal(signal.SIGCONT)
        await streamed.text("touch go")

        assert RAN == seen(await asked)
        assert 0 == await ended(paused)
        assert "run\n" == await streamed.text("cat runs")
        await streamed.run(lost)
        assert "run\nagain\n" == await streamed.text("cat runs")

    async def test_one_that_is_not_heard_is_not_asked(
        self, streamed: Box, calls: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And nothing that it has is lost."""
        monkeypatch.setattr(relay, "FRESH_S", 0)
        paused, asked = await paused_in_a_command(streamed, monkeypatch)

        assert RAN == seen(await streamed.exec("echo out; exit 3"))
        assert ["run"] == calls
        paused.signal(signal.SIGCONT)
        await streamed.text("touch go")
        assert RAN == seen(await asked)
        assert RAN == seen(await streamed.exec("echo out; exit 3"))
        assert ["run"] == calls
        assert [paused] == streams_of(streamed)

    @pytest.mark.parametrize(
        "garbage",
        [b"\0\0\0\1\0\0\0\1x", bytes(64), b"\0\0\0\3" + b"\xff" * 64],
        ids=["cut", "empty", "huge"],
    )
    async def test_a_broken_answer(
        self, streamed: Box, calls: list[str], monkeypatch: pytest.MonkeyPatch, garbage: bytes
    ) -> None:
        stream = await the_stream(streamed)
        receive = stream.receive

        async def broken() -> bytes:
            return garbage + await receive()

        monkeypatch.setattr(stream, "receive", broken)
        first, second = command("echo run >> runs"), command("echo run >> runs")
        await streamed.run(first)
        await streamed.run(second)
        await streamed.run(first)
        await streamed.run(second)

        assert "run\nrun\n" == await streamed.text("cat runs")

    async def test_a_helper_that_has_no_relay(
        self, streamed: Box, calls: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As an older one: it says that it does not know the verb, and is not asked again."""
        monkeypatch.setattr(relay, "VERB", "relayed")

        for _ in range(2):
            assert RAN == seen(await streamed.exec("echo out; exit 3"))

        assert ["run", "run"] == calls
        assert 1 == len(streams_of(streamed))
        assert 0 == await ended(streams_of(streamed)[0])

    @pytest.mark.parametrize(
        ("error", "tried"), [(NotImplementedError("no streams"), 1), (OSError("none today"), 2)]
    )
    async def test_a_backend_that_opens_none(
        self,
        streamed: Box,
        calls: list[str],
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        tried: int,
    ) -> None:
        """One that may do so later is asked again, after a while."""
        opened = 0

        async def open_stream(*_: object, **__: object) -> PipeStream:
            nonlocal opened
            opened += 1
            raise error

        monkeypatch.setattr(streamed.provider, "open_stream", open_stream)
        for _ in range(2):
            assert RAN == seen(await streamed.exec("echo out; exit 3"))
        assert 1 == opened
        monkeypatch.setattr(relays, "PAUSE_S", 0)
        await _forget_pause(streamed)
        await streamed.exec("true")

        assert tried == opened
        assert ["run"] * 3 == calls

    async def test_a_keeper_that_was_killed(self, streamed: Box) -> None:
        request = command("echo run >> runs; kill -9 $PPID; sleep 60")

        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                await streamed.run(request)

        assert "run\n" == await streamed.text("cat runs")


class TestEnd:
    async def test_with_the_session(self, streamed: Box, calls: list[str]) -> None:
        stream = await the_stream(streamed)
        await close_helpers(streamed.session)

        assert 0 == await ended(stream)
        assert RAN == seen(await streamed.exec("echo out; exit 3"))
        assert ["run"] == calls
        assert [stream] == streams_of(streamed)

    async def test_of_a_command_that_is_under_way(self, streamed: Box) -> None:
        """It is asked for through `exec` then, as by the next worker."""
        asked = asyncio.create_task(streamed.exec(WAITING))
        await streamed.line("runs")
        await streamed.exec("true")  # It follows the first, which has been passed on, then.
        await close_helpers(streamed.session)
        await streamed.text("touch go")

        assert RAN == seen(await asked)
        assert "run\n" == await streamed.text("cat runs")

    async def test_when_nobody_uses_it(
        self, streamed: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay, "IDLE_S", 0.1)
        stream = await the_stream(streamed)

        assert 0 == await ended(stream)
        assert RAN == seen(await streamed.exec("echo out; exit 3"))
        assert 2 == len(streams_of(streamed))

    async def test_not_while_a_command_runs(
        self, streamed: Box, calls: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay, "IDLE_S", 0.05)

        assert RAN == seen(await streamed.exec("sleep 0.5; echo out; exit 3"))
        assert [] == calls

    async def test_when_the_session_changes_what_commands_inherit(
        self, streamed: Box, calls: list[str]
    ) -> None:
        first = await the_stream(streamed)
        asked = asyncio.create_task(streamed.exec(WAITING))
        await streamed.exec("until [ -e runs ]; do sleep 0.02; done")
        await streamed.exec("true")  # It follows the first, which has been passed on, then.
        streamed.session.state.manifest.environment.value["GREETING"] = "good day"

        assert b"good day\n" == (await streamed.exec("echo $GREETING; touch go")).stdout
        assert RAN == seen(await asked)
        assert 0 == await ended(first)
        assert [] == calls


async def _refuse(*_: object, **__: object) -> object:
    raise ExecTransportError(command=(), message="the sandbox is paused")


async def _forget_pause(box: Box) -> None:
    helper = await box.helper()
    kept: relays.Relays = helper._relays  # type: ignore[attr-defined]
    kept._not_before = 0.0
