"""A command runs to its end once, as the backend itself would have run it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import resource
import shutil
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from agents import trace, tracing
from agents.sandbox.errors import ExecTimeoutError, ExecTransportError, SandboxError
from agents.sandbox.session.events import SandboxSessionEvent
from agents.sandbox.session.sinks import CallbackSink
from agents.sandbox.types import ExecResult
from agents.tracing.processor_interface import TracingProcessor
from agents.tracing.provider import DefaultTraceProvider
from processes.driving import (
    OFF,
    Box,
    command,
    parent,
    running,
    second_attempt,
    seen,
    turn_helper_off,
)
from support import until
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.providers import SupportsDestroy
from sandbox_core.wire import messages as m
from sandbox_core.wire.failures import decode_error
from sandbox_core.wire.limits import current_limits
from sandbox_core.worker.commands import host
from sandbox_core.worker.commands.helper import why_plain
from sandbox_core.worker.commands.install import state_id
from sandbox_core.worker.sessions.destroying import destroy


class TestAsPlain:
    """What a command prints and returns does not depend on the helper."""

    @pytest.mark.parametrize("shell", [True, False, ("bash", "-c")], ids=["sh", "none", "bash"])
    async def test_the_environment_is_the_backends(
        self, box: Box, shell: bool | tuple[str, ...]
    ) -> None:
        if box.provider.name in ("through-exec", "streamed") and shell is True:
            pytest.skip("the SDK's local backend changes directory in what it passes to a shell")
        plain = await box.plain("env", shell=shell if isinstance(shell, bool) else list(shell))

        durable = await box.run(command("env", shell=shell))

        assert sorted(plain.stdout.splitlines()) == sorted(durable.stdout.splitlines())

    async def test_signals_have_their_defaults(self, box: Box) -> None:
        """A shell's background jobs would ignore SIGINT; a command must not."""
        show = command("grep", "-E", "Sig(Ign|Blk|Cgt)", "/proc/self/status", shell=False)

        shown = await box.run(show)

        plain = await box.session.exec(*show.command, shell=False)
        assert plain.stdout == shown.stdout

    async def test_limits_are_those_of_the_moment(self, local: Box) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = await local.exec("ulimit -n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
        try:
            after = await local.exec("ulimit -n")
            plain = await local.plain("ulimit -n")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        assert str(soft) == before.stdout.decode().strip()
        assert plain.stdout == after.stdout

    async def test_a_megabyte_of_anything_comes_back_whole(self, box: Box) -> None:
        produce = "head -c 400000 /dev/zero; head -c 400000 /dev/zero | tr '\\0' '\\377' >&2"
        if box.provider.name == "daytona":  # Which has text only.
            produce = produce.replace("377", "101").replace("; ", " | tr '\\0' '\\102'; ", 1)
        limits = current_limits()

        plain, durable = await box.plain(produce), await box.exec(produce)

        assert limits.output > 400_000
        assert seen(plain) == seen(durable)

    async def test_a_program_that_is_missing_is_the_backends_error(self, local: Box) -> None:
        with pytest.raises(ApplicationError) as failed:
            await local.run(command("no-such-program", shell=False))

        assert failed.value.non_retryable
        assert "ExecTransportError" == type(decode_error(failed.value)).__name__

    async def test_a_program_in_the_workspace_may_be_named_absolutely(self, local: Box) -> None:
        root = local.root
        await local.session.exec("printf '#!/bin/sh\\necho ran $1' > tool; chmod +x tool")

        result = await local.run(command(f"{root}/tool", "x", shell=False))

        assert (b"ran x\n", b"", 0) == seen(result)

    async def test_another_user_runs_it_as_the_backend_would(self, local: Box) -> None:
        """The local backend asks sudo, which may not be there; then both say so."""
        request = command("id", "-u").model_copy(update={"user": "nobody"})
        plain, durable = await asyncio.gather(
            local.session.exec("id", "-u", user="nobody"),
            local.run(request),
            return_exceptions=True,
        )

        if isinstance(plain, SandboxError):
            assert isinstance(durable, ExecTransportError)
            assert (type(plain), False) == (type(durable), durable.retryable)
            assert ("sh", "-c", "id -u") == durable.command
        else:
            assert not isinstance(plain, BaseException)
            assert not isinstance(durable, BaseException)
            assert seen(plain) == seen(durable)


class TestReports:
    """Who listens hears of the command, not of the helper."""

    async def test_a_sink_gets_its_events(self, local: Box) -> None:
        events: list[SandboxSessionEvent] = []
        sink = CallbackSink(lambda event, _: events.append(event))
        sink.bind(local.session)
        local.session._instrumentation.add_sink(sink)

        await local.exec("true")

        assert [("exec", "start"), ("exec", "finish")] == [(e.op, e.phase) for e in events]
        assert ["true"] == events[0].data["command"]

    async def test_a_trace_gets_a_span(self, local: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        provider, spans = DefaultTraceProvider(), Spans()
        provider.set_disabled(False)
        provider.register_processor(spans)
        monkeypatch.setattr(tracing.setup, "GLOBAL_TRACE_PROVIDER", provider)

        with trace("commands"):
            await local.exec("true")

        assert ["sandbox.exec"] == spans.names


class Spans(TracingProcessor):
    """Remembers the names of the spans that have ended."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_span_end(self, span: tracing.Span[Any]) -> None:
        self.names.append(span.span_data.export()["name"])

    def on_span_start(self, span: tracing.Span[Any]) -> None:
        pass

    def on_trace_start(self, trace: tracing.Trace) -> None:
        pass

    def on_trace_end(self, trace: tracing.Trace) -> None:
        pass

    def shutdown(self) -> None:
        pass

    def force_flush(self) -> None:
        pass


class TestOnce:
    """However often it is asked for, it runs once."""

    async def test_asked_again_the_result_is_the_same(self, box: Box) -> None:
        """The call completed, and its answer was lost on the way."""
        run = command("echo run >> runs; echo out; echo err >&2; exit 3")

        first = seen(await box.run(run))
        again = seen(await box.run(run))

        assert (b"out\n", b"err\n", 3) == first == again
        assert "run\n" == await box.text("cat runs")

    async def test_eight_at_once_get_the_same_result(self, box: Box) -> None:
        run = command("echo run >> runs; sleep 0.5; echo out; kill -9 $$")

        results = await asyncio.gather(*(box.run(run) for _ in range(8)))

        assert "run\n" == await box.text("cat runs")
        assert 1 == len({seen(result) for result in results})

    async def test_it_outlives_the_call_that_asked_for_it(self, remote: Box) -> None:
        """Kill -9 of whatever the backend started leaves the command running; then attach."""
        run = command("echo run >> runs; echo > running; sleep 1; echo out; exit 4")
        before = children()
        asked = asyncio.create_task(remote.run(run))
        await until(lambda: asyncio.to_thread((Path(remote.root) / "running").exists))
        (client,) = children() - before

        os.killpg(client, signal.SIGKILL)

        assert (b"out\n", b"", 4) == seen(await asked)
        assert "run\n" == await remote.text("cat runs")

    async def test_a_command_whose_keeper_was_killed_is_not_run_again(self, box: Box) -> None:
        run = command("echo run >> runs; echo $PPID > keeper; sleep 60")
        asked = asyncio.create_task(box.run(run))
        keeper = int(await box.line("keeper"))

        os.kill(keeper, signal.SIGKILL)

        with pytest.raises(OutcomeUnknown, match=r"echo run.*was started.*not repeated"):
            await asked
        with pytest.raises(OutcomeUnknown):
            await box.run(run)
        assert "run\n" == await box.text("cat runs")

    async def test_the_resident_may_be_killed_at_any_time(self, local: Box) -> None:
        run = command("echo run >> runs; echo $PPID > keeper; sleep 1; echo out; exit 4")
        asked = asyncio.create_task(local.run(run))
        await local.line("keeper")

        os.kill((await local.ask("ping")).number("pid"), signal.SIGKILL)

        assert (b"out\n", b"", 4) == seen(await asked)
        assert (b"out\n", b"", 4) == seen(await local.run(run))
        assert "run\n" == await local.text("cat runs")

    @pytest.mark.parametrize("kept", ["nothing", "its records"])
    async def test_all_of_the_helper_may_go_while_it_runs(
        self, local: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
    ) -> None:
        """Its processes are killed, and its program can be put nowhere, or its records are gone."""
        monkeypatch.setattr(host, "BASES", (str(tmp_path),))
        script = (
            "echo run >> runs; echo $PPID $$ > pids; [ $(wc -l < runs) -gt 1 ] || exec sleep 60"
        )
        run = command(script)
        asked = asyncio.create_task(local.run(run))
        pids = [int(pid) for pid in (await local.line("pids")).split()]
        resident = (await local.ask("ping")).number("pid")
        shutil.rmtree(tmp_path / f".sandbox-helper-{os.getuid()}")
        if kept == "nothing":
            shutil.rmtree(tmp_path / f".sandbox-{os.getuid()}-{state_id(local.session)}")

        with monkeypatch.context() as nowhere:
            if kept == "its records":
                nowhere.setattr(host, "BASES", ())
            for process in (resident, *pids):
                os.kill(process, signal.SIGKILL)
            with pytest.raises(OutcomeUnknown, match="was started"):
                await asked

        assert "run\n" == await local.text("cat runs")
        await local.forget()

    async def test_its_records_are_private_and_outside_the_workspace(self, local: Box) -> None:
        await local.exec("true")

        folder = local.folder()
        assert folder is not None
        assert 0o700 == folder.stat().st_mode & 0o777
        assert [] == await local.session.ls(".")


class TestTimeout:
    """Who takes too long is ended, with all that it has started."""

    async def test_the_whole_tree_is_killed(self, box: Box) -> None:
        """Children, orphans, and a daemon with a session of its own."""
        tree = (
            "true; sleep 61 & echo $! >> pids; (sleep 62 & echo $! >> pids); "
            "setsid sh -c 'echo $$ >> pids; exec sleep 63' >/dev/null 2>&1 & "
            "echo $$ >> pids; sleep 64"
        )

        with pytest.raises(ExecTimeoutError) as failed:
            await box.run(command(tree, timeout=1))

        assert 1 == failed.value.timeout_s
        pids = [int(pid) for pid in (await box.text("cat pids")).split()]
        assert 4 == len(pids)
        assert [] == [pid for pid in pids if running(pid)]

    async def test_asked_again_it_has_timed_out(self, box: Box) -> None:
        run = command("echo run >> runs; sleep 60", timeout=0.5)

        for _ in range(2):
            with pytest.raises(ExecTimeoutError):
                await box.run(run)

        assert "run\n" == await box.text("cat runs")

    async def test_the_time_of_a_second_attempt_counts_from_the_start(self, box: Box) -> None:
        """Whoever has asked first, and why that was not answered."""
        run = command("echo run >> runs; echo $$ > pid; sleep 60", timeout=2)
        asked = asyncio.create_task(box.run(run))
        pid = int(await box.line("pid"))
        await box.text("sleep 1")

        with pytest.raises(ExecTimeoutError):
            await asyncio.wait_for(box.run(run), timeout=1.8)

        assert not running(pid)
        with pytest.raises(ExecTimeoutError):
            await asked

    async def test_the_error_names_the_setting(self, box: Box) -> None:
        with pytest.raises(ExecTimeoutError) as failed:
            await box.exec("sleep 60", timeout=0.5)

        assert "exec(timeout=0.5)" == failed.value.context["setting"]

    async def test_without_one_it_ends_with_its_activity(self, local: Box) -> None:
        """A little earlier, so that the workflow hears of it from here."""
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(
            environment.info,
            start_to_close_timeout=timedelta(seconds=1),
            schedule_to_close_timeout=timedelta(hours=1),
        )
        run = command("echo $$ > pid; sleep 60")

        with pytest.raises(ExecTimeoutError, match="start_to_close_timeout of 1 s") as failed:
            await environment.run(local.run, run)

        assert 0.95 == failed.value.timeout_s
        assert not running(int(await local.text("cat pid")))

    async def test_in_time_is_no_error(self, box: Box) -> None:
        result = await box.run(command("sleep 0.2; echo out", timeout=30))

        assert b"out\n" == result.stdout

    async def test_a_command_that_was_ended_before_it_started_never_starts(
        self, local: Box
    ) -> None:
        """The call to start it may be on its way still; or it may even have come to its end."""
        run = command("echo run >> runs", timeout=0.0001)
        answers = [await _answer(local, run) for _ in range(2)]

        assert answers in (["timeout", "timeout"], ["0", "0"])
        assert int(await local.text("cat runs 2>/dev/null | wc -l")) <= 1

    @pytest.mark.parametrize("helper", ["on", "off"])
    async def test_of_nothing_keeps_a_command_from_starting(
        self, box: Box, helper: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It would be a matter of luck how far it comes."""
        if helper == "off":
            turn_helper_off(monkeypatch)
        run = command("echo run >> runs", timeout=0)

        for _ in range(2):
            with pytest.raises(ExecTimeoutError) as failed:
                await box.run(run)

        assert "exec(timeout=0)" == failed.value.context["setting"]
        assert "" == await box.text("cat runs 2>/dev/null; true")


class TestCancellation:
    async def test_the_whole_tree_is_killed(self, box: Box) -> None:
        asked = asyncio.create_task(
            box.run(command("true; sleep 61 & echo $! $$ > pids; sleep 62"))
        )
        pids = [int(pid) for pid in (await box.line("pids")).split()]

        asked.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asked
        assert [] == [pid for pid in pids if running(pid)]


class TestWithoutTheHelper:
    """Where commands cannot be told apart, they run at most once."""

    @pytest.fixture(autouse=True)
    def off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        turn_helper_off(monkeypatch)

    async def test_the_first_attempt_is_the_backends_own(self, local: Box) -> None:
        result = await local.exec("echo out; exit 3")

        assert (b"out\n", b"", 3) == seen(result)
        assert local.folder() is None
        assert OFF == why_plain(local.provider, local.session, None)

    async def test_the_second_is_refused(self, local: Box) -> None:
        async def run() -> None:
            await local.exec("echo run >> runs")

        with pytest.raises(OutcomeUnknown, match="was not repeated"):
            await second_attempt().run(run)

        assert "" == await local.text("cat runs 2>/dev/null; true")

    async def test_so_is_the_first_of_a_third_worker(self, local: Box) -> None:
        """The second did not hold the session, which the workflow has then resumed here."""
        run = command("echo run >> runs").model_copy(update={"repeated": True})

        with pytest.raises(OutcomeUnknown, match="was not repeated"):
            await local.run(run)

        assert "" == await local.text("cat runs 2>/dev/null; true")


class TestForget:
    """With a session goes everything that it has started."""

    async def test_nothing_is_left(self, local: Box) -> None:
        await local.run(command("true; sleep 60 >/dev/null 2>&1 & echo $! > pid"))
        pid = int(await local.text("cat pid"))

        assert await local.forget()

        assert not running(pid)
        assert local.folder() is None

    async def test_nothing_is_left_of_a_workspace_whose_session_nobody_holds(
        self, local: Box
    ) -> None:
        await local.run(command("true; sleep 60 >/dev/null 2>&1 & echo $! > pid"))
        pid = int(await local.text("cat pid"))

        assert isinstance(local.provider, SupportsDestroy)
        await destroy(local.provider, local.provider.create_client(), local.root)

        assert not running(pid)
        assert local.folder() is None


class TestDyingSandbox:
    """One whose processes were all killed, while its backend still starts commands in it.

    That moment cannot be had at will, so the backend's calls are replaced.
    """

    async def test_is_not_taken_for_one_without_a_shell(
        self, remote: Box, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the backend then says of a command is no result of it."""

        async def killed(*command: str, **options: object) -> ExecResult:
            return ExecResult(stdout=b"", stderr=b"", exit_code=137)

        async def not_running() -> bool:
            return False

        with monkeypatch.context() as dying:
            dying.setattr(remote.session._inner, "exec", killed)
            dying.setattr(remote.session._inner, "running", not_running)
            with pytest.raises(ExecTransportError):
                await remote.exec("true")

        assert (b"", b"", 0) == seen(await remote.exec("true"))
        assert why_plain(remote.provider, remote.session, None) is None


def children() -> set[int]:
    """The children of this process."""
    return {
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if running(int(entry.name)) and parent(int(entry.name)) == os.getpid()
    }


async def _answer(box: Box, request: m.ExecRequest) -> str:
    try:
        return str((await box.run(request)).exit_code)
    except ExecTimeoutError:
        return "timeout"
