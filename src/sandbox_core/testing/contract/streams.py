"""Checks `open_stream`, if the provider has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.providers import ProcessStream
from sandbox_core.testing.contract.model import NotApplicable, check, expect, expect_equal
from sandbox_core.testing.contract.subject import Subject
from sandbox_core.worker.sdk_session import backend_session

_SIZE = 3_000_000
_UNREAD = 64 * 1024 * 1024
_UNREAD_S = 2.0
_NEEDS = ("process streams",)


@asynccontextmanager
async def _stream(
    subject: Subject, session: SandboxSession, *command: str
) -> AsyncIterator[ProcessStream]:
    try:
        stream = await subject.within(
            subject.streams.open_stream(backend_session(session), command, user=None)
        )
    except NotImplementedError as error:
        raise NotApplicable(f"open_stream: {error}") from error
    try:
        yield stream
    finally:
        await subject.within(stream.aclose())


async def _received(subject: Subject, stream: ProcessStream, size: int | None = None) -> bytes:
    """Receive `size` bytes, or all to the end."""
    received = bytearray()
    while size is None or len(received) < size:
        piece = await subject.within(stream.receive())
        if not piece:
            break
        received += piece
    return bytes(received)


@check("session", needs=_NEEDS, cost="the answers of the helper are damaged, and commands are slow")
async def bytes_pass_unaltered(subject: Subject) -> None:
    """Any bytes pass both ways unaltered, at the same time, and as soon as they are written."""
    session = await subject.session()
    sent = bytes(range(256)) * (_SIZE // 256)
    async with _stream(subject, session, "cat") as stream:
        for piece in (b"\r\n", b"\x00\x04\xff", b"\x1b[0m"):
            await subject.within(stream.send(piece))
            expect_equal(piece, await _received(subject, stream, len(piece)), "what `cat` returns")
        sending = asyncio.ensure_future(stream.send(sent))
        try:
            received = await _received(subject, stream, len(sent))
            await subject.within(sending)
        finally:
            sending.cancel()

        expect(sent == received, f"{len(sent):,} bytes were altered on their way through `cat`")


@check("session", needs=_NEEDS, cost="a worker that reads slowly runs out of memory")
async def unread_output_waits(subject: Subject) -> None:
    """A process whose output is not received has to wait with writing more."""
    session = await subject.session()
    folder = await subject.folder()
    script = f"head -c {_UNREAD} /dev/zero; : > {folder}/written"
    async with _stream(subject, session, "sh", "-c", script) as stream:
        until = time.monotonic() + _UNREAD_S
        waits = f"until [ -e {folder}/written ] || [ $n -ge 20 ]; do sleep 0.1; n=$((n + 1)); done"
        await subject.sh(f"n=0; {waits}")
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        there = (await subject.sh(f"ls {folder}")).stdout
        size = len(await _received(subject, stream))

    expect_equal(b"", there, f"what the process did before its {_UNREAD:,} bytes were received")
    expect_equal(_UNREAD, size, "bytes received")


@check(
    "session", needs=_NEEDS, cost="commands run elsewhere, as another user, or without variables"
)
async def the_process_is_that_of_exec(subject: Subject) -> None:
    """The process has the working directory, user and environment of one that `exec` starts."""
    session = await subject.session()
    command = ("sh", "-c", "pwd; id; env | sort")
    expected = await subject.within(session.exec(*command, shell=False))
    async with _stream(subject, session, *command) as stream:
        seen = await _received(subject, stream)

    expect_equal(expected.stdout.decode(), seen.decode(), "what the process has")


@check("session", needs=_NEEDS, cost="each worker that ends leaves a process in the sandbox")
async def stdin_ends(subject: Subject) -> None:
    """`send_eof` ends stdin, but not stdout; `aclose` ends stdin."""
    session = await subject.session()
    folder = await subject.folder()
    async with _stream(subject, session, "sh", "-c", "cat; echo after") as stream:
        await subject.within(stream.send(b"before\n"))
        await subject.within(stream.send_eof())
        seen = await _received(subject, stream)
    script = f"cat; echo ended > {folder}/ended"
    async with _stream(subject, session, "sh", "-c", script) as stream:
        await subject.within(stream.send(b"x"))
        await _received(subject, stream, 1)
    waits = f"until [ -s {folder}/ended ] || [ $n -ge 50 ]; do sleep 0.1; n=$((n + 1)); done"
    ended = (await subject.sh(f"n=0; {waits}; cat {folder}/ended")).stdout

    expect_equal(b"before\nafter\n", seen, "what was received after `send_eof`")
    expect_equal(b"ended\n", ended, "what a process did whose stdin ended with `aclose`")


@check("session", needs=_NEEDS, cost="the worker waits for a process that does not exist")
async def a_missing_program_ends_the_stream(subject: Subject) -> None:
    """If the program does not exist, `open_stream` raises a `SandboxError`, or the stream ends."""
    session = await subject.session()
    try:
        async with _stream(subject, session, "/no-such-program-anywhere", "x") as stream:
            await _received(subject, stream)
    except SandboxError:
        return
