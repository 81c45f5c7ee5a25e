"""A command that is run to its end: once, and as the backend itself would have run it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shlex
import signal
import uuid
from pathlib import Path

import pytest
from agents.sandbox.errors import ExecTimeoutError, ExecTransportError, SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.wire.failures import decode_error
from sandbox_core.worker.commands import processes


def command(
    *words: str,
    timeout: float | None = None,
    shell: bool | tuple[str, ...] = True,
    operation_id: str | None = None,
) -> m.ExecRequest:
    return m.ExecRequest(
        session=m.SessionRef(session_id="unused", epoch=1),
        operation_id=operation_id or uuid.uuid4().hex,
        command=words,
        timeout=timeout,
        shell=shell,
    )


def seen(result: ExecResult) -> tuple[bytes, bytes, int]:
    return result.stdout, result.stderr, result.exit_code


def second_attempt() -> ActivityEnvironment:
    """Where an activity runs that was attempted before."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, attempt=2)
    return environment


async def text(session: SandboxSession, shell_command: str) -> str:
    """What a plain command prints."""
    return (await session.exec(shell_command)).stdout.decode()


async def wait_for_line(session: SandboxSession, path: str) -> str:
    """The first line of a file of the workspace, once it is there; in one call."""
    path = shlex.quote(path)
    return await text(session, f"until [ -s {path} ]; do sleep 0.01; done; cat {path}")


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_with(word: str) -> list[int]:
    """The children of this process with a word in their command line."""
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if running(int(entry.name))
        and word in (entry / "cmdline").read_text()
        and f"PPid:\t{os.getpid()}\n" in (entry / "status").read_text()
    ]


def folder(session: SandboxSession) -> Path:
    return Path(f"/tmp/.sandbox-core-{session.state.session_id}")


SAME_AS_PLAIN: dict[str, tuple[tuple[str, ...], bool | tuple[str, ...]]] = {
    "nothing": (("true",), True),
    "both streams": (("echo out; echo err >&2",), True),
    "failure": (("echo out; echo err >&2; exit 7",), True),
    "largest code": (("exit 255",), True),
    "a code that looks like a signal": (("exit 137",), True),
    "killed": (("kill -9 $$",), True),
    "terminated": (("echo out; kill -TERM $$",), True),
    "a child is killed": (("sh -c 'kill -9 $$'; exit $?",), True),
    "no program in a shell": (("no-such-program",), True),
    "syntax error": (("(",), True),
    "several words for a shell": (("printf", "%s|", "a b", "$HOME", "'", '"', "\n", "*"), True),
    "several words for none": (("printf", "%s|", "a b", "$HOME", "'", '"', "\n", "*"), False),
    "a builtin as a program": (("echo", "-e", "a\\nb"), False),
    "an empty word": (("printf", "%s|", "", "x", ""), False),
    "words that look like options": (("printf", "%s|", "--", "-n", "=", "=a"), False),
    "a shell of one's own": (("echo ${BASH_VERSION:+bash}",), ("bash", "-c")),
    "no newline at the end": (("printf abc",), True),
    "only newlines": (("printf '\\n\\n\\n'",), True),
    "stdin": (("cat",), True),
    "working directory": (("pwd",), True),
    "a variable of the manifest": (("echo $GREETING",), True),
    "umask": (("umask",), True),
    "utf-8": (("printf '\\303\\244\\342\\202\\254'",), True),
    "controls": (("printf 'a\\tb\\r\\n\\033[0m\\201\\210'",), True),
    "a backslash": (("printf 'a\\\\nb\\\\\\\\ %%s -n'; printf '\\\\' >&2",), True),
    "many short lines": (("seq 1 200; printf ' x '",), True),
    "spaces around": (("printf '  a  \\n  b  \\n\\n  '",), True),
    "reopened output": (("echo a; echo bcd >/dev/stdout; echo e",), True),
    "cut output": (("echo abcdef; : >/dev/stdout; echo x",), True),
    "binary": (("printf '\\000\\001\\377\\376'; printf '\\200\\000' >&2",), True),
    "in the background": (("(sleep 0.3; echo late) & echo early",), True),
    "in a session of its own": (("setsid sh -c 'sleep 0.3; echo late' & echo early",), True),
    "a daemon with closed streams": (("sleep 0.3 >/dev/null 2>&1 & echo early",), True),
}


class TestAsPlain:
    """What a command prints and returns does not depend on the shim."""

    @pytest.mark.parametrize(("words", "shell"), SAME_AS_PLAIN.values(), ids=SAME_AS_PLAIN)
    async def test_output_and_exit_code_are_the_backends(
        self, session: SandboxSession, words: tuple[str, ...], shell: bool | tuple[str, ...]
    ) -> None:
        plain = await session.exec(
            *words, shell=shell if isinstance(shell, bool) else list(shell), timeout=20
        )

        durable = await processes.run(session, command(*words, shell=shell, timeout=20))

        assert seen(plain) == seen(durable)

    @pytest.mark.parametrize("shell", [True, ("bash", "-c")], ids=["sh", "bash"])
    async def test_the_environment_is_the_backends(
        self, session: SandboxSession, shell: bool | tuple[str, ...]
    ) -> None:
        plain = await session.exec("env", shell=shell if shell is True else ["bash", "-c"])

        durable = await processes.run(session, command("env", shell=shell))

        # bash counts how deep it is nested, and says what it has started last.
        lines = [
            {line for line in out.stdout.splitlines() if line[:2] != b"_=" and b"SHLVL" not in line}
            for out in (plain, durable)
        ]
        assert lines[0] == lines[1] - ({b"PWD=" + durable.stdout} if shell is not True else set())

    async def test_signals_have_their_defaults(self, session: SandboxSession) -> None:
        """A shell's background jobs would ignore SIGINT; a command must not."""
        show = command("grep", "-E", "Sig(Ign|Blk|Cgt)", "/proc/self/status", shell=False)

        shown = await processes.run(session, show)

        plain = await session.exec(*show.command, shell=False)
        assert plain.stdout == shown.stdout

    async def test_ten_megabytes_come_back_whole(self, local: SandboxSession) -> None:
        produce = "head -c 10000000 /dev/zero; head -c 1000000 /dev/zero | tr '\\0' '\\377' >&2"

        result = await processes.run(local, command(produce))

        assert (bytes(10_000_000), b"\xff" * 1_000_000, 0) == seen(result)

    async def test_a_program_that_is_missing_is_the_backends_error(
        self, local: SandboxSession
    ) -> None:
        with pytest.raises(ApplicationError) as failed:
            await processes.run(local, command("no-such-program", shell=False))

        assert failed.value.non_retryable
        assert "ExecTransportError" == type(decode_error(failed.value)).__name__

    async def test_a_program_in_the_workspace_may_be_named_absolutely(
        self, local: SandboxSession
    ) -> None:
        root = local.state.manifest.root
        await local.exec("printf '#!/bin/sh\\necho ran $1' > tool; chmod +x tool")

        result = await processes.run(local, command(f"{root}/tool", "x", shell=False))

        assert (b"ran x\n", b"", 0) == seen(result)

    async def test_another_user_runs_it_as_the_backend_would(self, local: SandboxSession) -> None:
        """The local backend asks sudo, which may not be there; then both say so."""
        request = command("id", "-u").model_copy(update={"user": "nobody"})
        plain, durable = await asyncio.gather(
            local.exec("id", "-u", user="nobody"),
            processes.run(local, request),
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


class TestOtherShells:
    """The shim is POSIX sh."""

    @pytest.mark.usefixtures("other_shell")
    async def test_a_command_runs_and_its_tree_ends(self, local: SandboxSession) -> None:
        run = command("echo run >> runs; echo out; echo err >&2; exit 3")
        for _ in range(2):
            assert (b"out\n", b"err\n", 3) == seen(await processes.run(local, run))
        with pytest.raises(ExecTimeoutError):
            await processes.run(local, command("echo $$ > pid; sleep 60", timeout=0.5))

        assert "run\n" == await text(local, "cat runs")
        assert not running(int(await text(local, "cat pid")))


class TestOnce:
    """However often it is asked for, it runs once."""

    async def test_asked_again_the_result_is_the_same(self, session: SandboxSession) -> None:
        """The call completed, and its answer was lost on the way."""
        run = command("echo run >> runs; echo out; echo err >&2; exit 3")

        first = seen(await processes.run(session, run))
        again = seen(await processes.run(session, run))

        assert (b"out\n", b"err\n", 3) == first == again
        assert "run\n" == await text(session, "cat runs")

    async def test_eight_at_once_get_the_same_result(self, session: SandboxSession) -> None:
        run = command("echo run >> runs; sleep 0.5; echo out; kill -9 $$")

        results = await asyncio.gather(*(processes.run(session, run) for _ in range(8)))

        assert "run\n" == await text(session, "cat runs")
        assert 1 == len({seen(result) for result in results})

    async def test_it_outlives_the_process_group_that_asked_for_it(
        self, local: SandboxSession
    ) -> None:
        """Kill -9 of whatever the backend started leaves the command running; then attach."""
        run = command("echo run >> runs; echo $PPID > runner; sleep 1; echo out; exit 4")
        asked = asyncio.create_task(processes.run(local, run))
        await wait_for_line(local, "runner")
        (shim,) = children_with(run.operation_id)

        os.killpg(shim, signal.SIGKILL)

        assert (b"out\n", b"", 4) == seen(await asked)
        assert "run\n" == await text(local, "cat runs")

    async def test_a_command_that_vanished_is_not_run_again(self, session: SandboxSession) -> None:
        run = command("echo run >> runs; echo $PPID > runner; sleep 60")
        asked = asyncio.create_task(processes.run(session, run))
        runner = int(await wait_for_line(session, "runner"))

        os.killpg(os.getpgid(runner), signal.SIGKILL)

        with pytest.raises(OutcomeUnknown, match=r"echo run.*was started.*not repeated"):
            await asked
        with pytest.raises(OutcomeUnknown):
            await processes.run(session, run)
        assert "run\n" == await text(session, "cat runs")

    async def test_its_records_are_private_and_outside_the_workspace(
        self, local: SandboxSession
    ) -> None:
        await processes.run(local, command("true"))

        assert 0o700 == folder(local).stat().st_mode & 0o777
        assert [] == await local.ls(".")

    async def test_a_folder_that_somebody_else_made_is_not_used(
        self, local: SandboxSession, tmp_path: Path
    ) -> None:
        """Without its own folder the command runs, at most once."""
        folder(local).symlink_to(tmp_path)
        try:
            result = await processes.run(local, command("echo out"))
            assert "" == await text(local, f"ls {tmp_path}")
        finally:
            folder(local).unlink()

        assert b"out\n" == result.stdout


class TestTimeout:
    """Who takes too long is ended, with all that it has started."""

    async def test_the_whole_tree_is_killed(self, session: SandboxSession) -> None:
        """Children, orphans, and a daemon with a session of its own."""
        tree = (
            "sleep 61 & echo $! >> pids; (sleep 62 & echo $! >> pids); "
            "setsid sh -c 'echo $$ >> pids; exec sleep 63' >/dev/null 2>&1 & "
            "echo $$ >> pids; sleep 64"
        )

        with pytest.raises(ExecTimeoutError) as failed:
            await processes.run(session, command(tree, timeout=1))

        assert 1 == failed.value.timeout_s
        pids = [int(pid) for pid in (await text(session, "cat pids")).split()]
        assert 4 == len(pids)
        assert [] == [pid for pid in pids if running(pid)]

    async def test_asked_again_it_has_timed_out(self, session: SandboxSession) -> None:
        run = command("echo run >> runs; sleep 60", timeout=0.5)

        for _ in range(2):
            with pytest.raises(ExecTimeoutError):
                await processes.run(session, run)

        assert "run\n" == await text(session, "cat runs")

    async def test_the_time_of_a_second_attempt_counts_from_the_start(
        self, local: SandboxSession
    ) -> None:
        operation_id = uuid.uuid4().hex
        words = "echo $$ > pid; sleep 60"
        asked = asyncio.create_task(
            processes.run(local, command(words, operation_id=operation_id, timeout=60))
        )
        pid = int(await wait_for_line(local, "pid"))
        await text(local, "sleep 1")

        with pytest.raises(ExecTimeoutError):
            await asyncio.wait_for(
                processes.run(local, command(words, operation_id=operation_id, timeout=0.9)),
                timeout=0.8,
            )

        assert not running(pid)
        with pytest.raises(ExecTimeoutError):
            await asked

    async def test_in_time_is_no_error(self, session: SandboxSession) -> None:
        result = await processes.run(session, command("sleep 0.2; echo out", timeout=30))

        assert b"out\n" == result.stdout

    async def test_a_command_that_was_ended_before_it_started_never_starts(
        self, local: SandboxSession
    ) -> None:
        """The call to start it may be on its way still; or it may even have come to its end."""
        run = command("echo run >> runs", timeout=0)
        answers = [await _answer(local, run) for _ in range(2)]

        assert answers in (["timeout", "timeout"], ["0", "0"])
        assert int(await text(local, "cat runs 2>/dev/null | wc -l")) <= 1


class TestCancellation:
    async def test_the_whole_tree_is_killed(self, session: SandboxSession) -> None:
        asked = asyncio.create_task(
            processes.run(session, command("sleep 61 & echo $! $$ > pids; sleep 62"))
        )
        pids = [int(pid) for pid in (await wait_for_line(session, "pids")).split()]

        asked.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asked
        assert [] == [pid for pid in pids if running(pid)]


class TestWithoutTheShim:
    """Where commands cannot be told apart, they run at most once."""

    async def test_the_first_attempt_is_the_backends_own(self, local: SandboxSession) -> None:
        result = await processes.run(local, command("echo out; exit 3"), durable=False)

        assert (b"out\n", b"", 3) == seen(result)
        assert not folder(local).exists()

    async def test_the_second_is_refused(self, local: SandboxSession) -> None:
        async def run() -> None:
            await processes.run(local, command("echo run >> runs"), durable=False)

        with pytest.raises(OutcomeUnknown, match="was not repeated"):
            await second_attempt().run(run)

        assert "" == await text(local, "cat runs 2>/dev/null; true")

    async def test_the_second_is_known_by_its_key_when_the_session_was_resumed_in_between(
        self, local: SandboxSession
    ) -> None:
        """The workflow then asks for the same as a first attempt."""
        run = command("echo run >> runs")
        second_attempt().run(processes.announce, run)
        folder(local).symlink_to("/nowhere")

        try:
            with pytest.raises(OutcomeUnknown, match="was not repeated"):
                await processes.run(local, run)
        finally:
            folder(local).unlink()

        assert "" == await text(local, "cat runs 2>/dev/null; true")


class TestForget:
    """With a session goes everything that it has started."""

    async def test_nothing_is_left(self, local: SandboxSession) -> None:
        await processes.run(local, command("sleep 60 >/dev/null 2>&1 & echo $! > pid"))
        pid = int(await text(local, "cat pid"))

        assert await processes.forget(local)

        assert not running(pid)
        assert not folder(local).exists()

    async def test_nothing_is_left_of_a_workspace_whose_session_nobody_holds(
        self, local: SandboxSession
    ) -> None:
        await processes.run(local, command("sleep 60 >/dev/null 2>&1 & echo $! > pid"))
        pid = int(await text(local, "cat pid"))

        await processes.forget_on_host(local.state.manifest.root)

        assert not running(pid)
        assert not folder(local).exists()


class TestDyingSandbox:
    """One whose processes were all killed, while its backend still starts commands in it.

    That moment cannot be had at will, so the backend's calls are replaced.
    """

    async def test_is_not_taken_for_one_without_a_shell(
        self, local: SandboxSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the backend then says of a command is no result of it."""

        async def killed(*command: str, **options: object) -> ExecResult:
            return ExecResult(stdout=b"", stderr=b"", exit_code=137)

        async def not_running() -> bool:
            return False

        with monkeypatch.context() as dying:
            dying.setattr(local._inner, "exec", killed)
            dying.setattr(local._inner, "running", not_running)
            with pytest.raises(ExecTransportError):
                await processes.run(local, command("true"))

        assert (b"", b"", 0) == seen(await processes.run(local, command("true")))
        assert folder(local).exists()


async def _answer(session: SandboxSession, request: m.ExecRequest) -> str:
    try:
        return str((await processes.run(session, request)).exit_code)
    except ExecTimeoutError:
        return "timeout"
