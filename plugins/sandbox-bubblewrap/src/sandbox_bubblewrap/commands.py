"""Runs commands in a sandbox, with pipes for their output or at a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from sandbox_bubblewrap.connection import NothingRan, Process, ending, open_process
from sandbox_bubblewrap.pipes import READ, Pipes, reader_of
from sandbox_bubblewrap.store import Sandbox

MAX_OUTPUT: Final = 256 * 1024 * 1024
"""How many bytes a command may write to stdout, and to stderr, before it is killed."""


class TooMuchOutput(Exception):
    """A command wrote more output than a worker keeps in memory."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The result of a process. As in `subprocess`, a signal's number is negative."""

    code: int
    stdout: bytes = b""
    stderr: bytes = b""


async def run(
    sandbox: Sandbox,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    timeout: float | None = None,
) -> Ended:
    """Run a command to its end and that of its output.

    Raises:
        asyncio.TimeoutError: It did not end in time; its session was killed.
        NothingRan: It could not be started, for example because there is no such program.
        NotRunning: The sandbox is not running, or ended meanwhile.
        TooMuchOutput: It wrote more than `MAX_OUTPUT`; its session was killed.
    """
    with ExitStack() as stack:
        process, outputs = await start(sandbox, argv, env=env, cwd=cwd)
        stack.callback(process.close)
        for _, transport in outputs:
            stack.callback(transport.close)
        reading = [_read_all(reader) for reader, _ in outputs]
        return await ending(process, _collect(process, *reading), timeout)


async def start(
    sandbox: Sandbox, argv: Sequence[str], *, env: Mapping[str, str], cwd: str
) -> tuple[Process, list[tuple[asyncio.StreamReader, asyncio.ReadTransport]]]:
    """Start a command, and return it with readers of its stdout and stderr.

    Raises:
        NotRunning: The sandbox is not running.
    """
    request = {"op": "exec", "argv": list(argv), "env": dict(env), "cwd": cwd}
    with Pipes() as pipes:
        outputs = [pipes.open(), pipes.open()]
        process = await open_process(sandbox, request, [theirs for _, theirs in outputs])
        try:
            return process, [await reader_of(pipes.keep(ours)) for ours, _ in outputs]
        except BaseException:
            process.close()
            raise


async def open_terminal(
    sandbox: Sandbox,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    size: tuple[int, int],
) -> tuple[Process, int]:
    """Start a command at a new terminal, and return the terminal's descriptor.

    Raises:
        NothingRan: It could not be started.
        NotRunning: The sandbox is not running.
    """
    request = {"op": "exec", "argv": list(argv), "env": dict(env), "cwd": cwd, "tty": list(size)}
    process = await open_process(sandbox, request, [])
    try:
        answer = await process.next_answer()
        terminal = process.take()
        if terminal is None:
            raise NothingRan(int(answer.get("errno", 0)), str(answer.get("at", "terminal")))
    except BaseException:
        process.close()
        raise
    return process, terminal


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    content = bytearray()
    while piece := await reader.read(READ):
        content += piece
        if len(content) > MAX_OUTPUT:
            raise TooMuchOutput
    return bytes(content)


async def _collect(process: Process, *reading: Awaitable[bytes]) -> Ended:
    waiting = asyncio.ensure_future(process.wait())
    try:
        stdout, stderr = await asyncio.gather(*reading)
        return Ended(code=await waiting, stdout=stdout, stderr=stderr)
    finally:
        if not waiting.done():
            process.kill()
            waiting.cancel()
