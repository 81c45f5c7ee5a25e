"""Checks `pty_exec_start` and the related operations, if a session has them."""

from __future__ import annotations

import asyncio
import time

from agents.sandbox.errors import PtySessionNotFoundError
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.testing.contract.model import (
    NO_TERMINALS,
    NotApplicable,
    PromiseBroken,
    check,
    expect,
    expect_equal,
)
from sandbox_core.testing.contract.subject import Subject

_ENDS_S = 30.0
"""How long a process with nothing left to do may take to end, in seconds."""


async def _session(subject: Subject) -> SandboxSession:
    session = await subject.session()
    if not session.supports_pty():
        raise NotApplicable(NO_TERMINALS)
    return session


async def _to_its_end(
    subject: Subject, session: SandboxSession, update: PtyExecUpdate
) -> tuple[bytes, int | None]:
    output, given_up = update.output, time.monotonic() + _ENDS_S
    while update.process_id is not None:
        if time.monotonic() > given_up:
            raise PromiseBroken(f"it had not ended after {_ENDS_S:g} s; its output: {output!r}")
        update = await subject.within(
            session.pty_write_stdin(session_id=update.process_id, chars="", yield_time_s=1)
        )
        output += update.output
    return output, update.exit_code


@check("session", cost="the output of a long command is lost or repeated")
async def output_is_delivered_once(subject: Subject) -> None:
    """A running process is polled until it ends; its output is delivered once, in order."""
    session = await _session(subject)
    script = "for n in 1 2 3 4 5 6 7 8; do echo line $n; sleep 0.3; done; exit 5"
    first = await subject.within(session.pty_exec_start(script, yield_time_s=0.5))
    expect(first.process_id is not None, "a process that had not ended has no id")
    output, exit_code = await _to_its_end(subject, session, first)

    expected = "".join(f"line {n}\n" for n in range(1, 9)).encode()
    expect_equal((expected, 5), (output.replace(b"\r\n", b"\n"), exit_code), "output and exit code")


@check("session", cost="a short command looks as if it never ended")
async def a_short_process_ends_with_its_first_output(subject: Subject) -> None:
    """A process that ends within the yield time has an exit code and no id."""
    session = await _session(subject)
    update = await subject.within(session.pty_exec_start("echo hi; exit 3", yield_time_s=5))
    output, exit_code = await _to_its_end(subject, session, update)

    expect_equal((b"hi\n", 3), (output.replace(b"\r\n", b"\n"), exit_code), "output and exit code")


@check("session", cost="programs that ask questions cannot be answered")
async def a_terminal_can_be_written_to(subject: Subject) -> None:
    """A process with a terminal sees a terminal and reads the input."""
    session = await _session(subject)
    script = 'test -t 0 && test -t 1 && echo terminal-$((40 + 2)); read -r line; echo "got $line"'
    update = await subject.within(session.pty_exec_start(script, tty=True, yield_time_s=1))
    output = update.output
    if update.process_id is None:
        raise PromiseBroken(f"the process did not wait for its input; its output: {output!r}")
    update = await subject.within(
        session.pty_write_stdin(session_id=update.process_id, chars="hello\n", yield_time_s=1)
    )
    output += update.output
    given_up = time.monotonic() + _ENDS_S
    while b"got hello" not in output and update.process_id is not None:
        if time.monotonic() > given_up:
            raise PromiseBroken(f"what was written did not arrive: {output!r}")
        update = await subject.within(
            session.pty_write_stdin(session_id=update.process_id, chars="", yield_time_s=1)
        )
        output += update.output
    await subject.within(session.pty_terminate_all())

    # Neither text occurs in the command itself, which a shell may echo.
    expect(b"terminal-42" in output, f"the process has no terminal: {output!r}")
    expect(b"got hello" in output, f"what was written did not arrive: {output!r}")


@check("session", cost="a program with a terminal looks as if it never ended")
async def a_terminal_ends_with_its_process(subject: Subject) -> None:
    """An ended process with a terminal has an exit code and no id."""
    session = await _session(subject)
    update = await subject.within(session.pty_exec_start("exit 3", tty=True, yield_time_s=1))
    _, exit_code = await _to_its_end(subject, session, update)

    expect_equal(3, exit_code, "the exit code")


@check("session", cost="a vanished process looks like a silent one")
async def an_unknown_process_is_said(subject: Subject) -> None:
    """Polling an unknown process raises `PtySessionNotFoundError`."""
    session = await _session(subject)
    try:
        await subject.within(session.pty_write_stdin(session_id=999_999, chars=""))
    except PtySessionNotFoundError:
        return
    raise PromiseBroken("a poll of process 999999, which was never started, was answered")


@check("session", cost="an agent's old processes stay in the sandbox")
async def terminating_ends_all_processes(subject: Subject) -> None:
    """`pty_terminate_all` ends every process; repeating it is not an error."""
    session = await _session(subject)
    folder = await subject.folder()
    script = f"while true; do echo tick >> {folder}/ticks; sleep 0.1; done"
    await subject.within(session.pty_exec_start(script, yield_time_s=0.5))
    await subject.within(session.pty_terminate_all())
    await subject.within(session.pty_terminate_all())
    # Two readings of the file, a second apart, show whether the loop still runs.
    first = (await subject.sh(f"sleep 1; wc -c < {folder}/ticks")).stdout
    await asyncio.sleep(1)
    second = (await subject.sh(f"wc -c < {folder}/ticks")).stdout

    expect_equal(first, second, "bytes that the process has written, a second apart")
