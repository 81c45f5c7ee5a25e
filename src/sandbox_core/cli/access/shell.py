"""`sandbox-core shell`: a terminal in the sandbox of a running agent."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from agents.sandbox.errors import PtySessionNotFoundError, SandboxError

from sandbox_core.cli.access.holder import Where
from sandbox_core.cli.access.terminal import Terminal, raw_terminal
from sandbox_core.cli.access.visit import Visit, own_id
from sandbox_core.cli.outcome import reason_of
from sandbox_core.errors import InvalidRequest, OperationFailed
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.workflow.polling import PolledProcess

_POLL_S = 20.0
"""How long one poll waits for output."""

_END_S = 1.0
"""How long polls may take to notice the end of the process."""

# What is run says what the terminal is, and how large from the beginning on, if there is an stty;
# a shell is bash where there is one.
_IN_TERMINAL = 'export TERM="$0"; stty rows "$1" columns "$2" 2>/dev/null; shift 2; exec "$@"'
_SHELL = "command -v bash >/dev/null 2>&1 && exec bash || exec sh"

_ESCAPE, _HANG_UP = b"~", b"."


async def run_shell(
    sandbox_id: str, command: Sequence[str], where: Where, *, user: str | None
) -> int:
    """Run a command in a terminal, this process's being its screen; return its exit code.

    Args:
        sandbox_id: The sandbox's id, as `list_sandboxes` shows it.
        command: The program and its arguments; empty for a shell.
        where: Where the sandbox is looked for.
        user: The user to run it as; None for the backend's default one.

    Raises:
        InvalidRequest: There is no terminal here, or the sandbox does not exist, is ambiguous, or
            has no terminals.
        SandboxLost: No worker holds the sandbox.
        SandboxCoreError: The command could not be run, or its worker is gone.
        ServerUnavailable: The server does not answer, or does not run standalone activities.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequest(
            "shell needs a terminal as its standard input and output. Without one, use "
            "sandbox-core exec ID -- COMMAND."
        )
    visit = await Visit.begin(sandbox_id, where)
    if not visit.supports_pty:
        raise InvalidRequest(
            f"sandbox {sandbox_id!r} has no terminals: its provider does not support them. Use "
            f"sandbox-core exec ID -- COMMAND."
        )
    words = tuple(command) or ("sh", "-c", _SHELL)
    size = map(str, Terminal(sys.stdin.fileno()).size)
    request = m.PtyExecStartRequest(
        session=visit.session,
        operation_id=own_id(),
        command=("sh", "-c", _IN_TERMINAL, os.environ.get("TERM", "dumb"), *size, *words),
        shell=False,
        user=user,
        tty=True,
        yield_time_s=0.25,
    )
    try:
        started = await visit.perform(ops.PTY_EXEC_START, request)
        return await _Shell(visit, user, started).run()
    except SandboxError as error:
        raise OperationFailed(reason_of(error, words)) from error


class _Shell:
    """A process in a sandbox's terminal, and the terminal here."""

    def __init__(self, visit: Visit, user: str | None, started: m.PtyResponse) -> None:
        self._visit = visit
        self._user = user
        self._started = started
        self._number = started.process_id or 0
        self._process = PolledProcess(user=user)
        self._ended = asyncio.Event()
        self._exit_code = 128 + signal.SIGHUP
        self._resized = asyncio.Event()
        self._closed = asyncio.Event()

    async def run(self) -> int:
        """Pass keys and output on until the process ends, or the terminal does."""
        self._resized.set()
        with raw_terminal(resized=self._resized.set, closed=self._closed.set) as terminal:
            self._show(terminal, self._started, 0)
            reading = asyncio.ensure_future(self._read(terminal))
            typing = asyncio.ensure_future(self._type(terminal))
            others = [
                asyncio.ensure_future(self._resize(terminal)),
                asyncio.ensure_future(self._closed.wait()),
                asyncio.ensure_future(self._ended.wait()),
            ]
            try:
                await asyncio.wait({reading, typing, *others}, return_when=asyncio.FIRST_COMPLETED)
                for task in (reading, typing, others[0]):
                    if task.done():
                        task.result()
            finally:
                if not self._ended.is_set():
                    await self._hang_up()
                # Polls end with the process. Cancelling one takes until the next heartbeat.
                await asyncio.wait({reading, typing}, timeout=_END_S)
                for task in (reading, typing, *others):
                    task.cancel()
                await asyncio.gather(reading, typing, *others, return_exceptions=True)
        return self._exit_code if self._exit_code >= 0 else 128 - self._exit_code

    async def _read(self, terminal: Terminal) -> None:
        while not self._ended.is_set():
            await self._poll(terminal, "", _POLL_S)

    async def _type(self, terminal: Terminal) -> None:
        """Pass on what is typed, until its end or ``~.`` at the beginning of a line."""
        at_start, escaped = True, False
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while typed := await terminal.keys.get():
            while not terminal.keys.empty():  # Typed meanwhile.
                typed += terminal.keys.get_nowait()
            passed = bytearray()
            for key in (bytes([byte]) for byte in typed):
                if escaped and key == _HANG_UP:
                    return
                if at_start and not escaped and key == _ESCAPE:
                    escaped = True
                    continue
                if escaped and key != _ESCAPE:
                    passed += _ESCAPE
                passed += key
                at_start, escaped = key in b"\r\n", False
            if keys := decoder.decode(bytes(passed)):
                await self._poll(terminal, keys, 0.25)

    async def _resize(self, terminal: Terminal) -> None:
        while True:
            await self._resized.wait()
            self._resized.clear()
            rows, columns = terminal.size
            with suppress(PtySessionNotFoundError):  # It ends; that is noticed elsewhere.
                await self._visit.perform(
                    ops.PTY_RESIZE,
                    m.PtyResizeRequest(
                        session=self._visit.session,
                        process_id=self._number,
                        rows=rows,
                        columns=columns,
                        user=self._user,
                    ),
                )

    async def _poll(self, terminal: Terminal, keys: str, wait_s: float) -> None:
        since = self._process.offset
        request = self._request(chars=keys, yield_time_s=wait_s, until_output=True)
        try:
            response = await self._visit.perform(ops.PTY_WRITE_STDIN, request)
        except PtySessionNotFoundError:
            if not self._process.ended:
                raise
            return
        self._show(terminal, response, since)

    def _show(self, terminal: Terminal, response: m.PtyResponse, since: int) -> None:
        new = self._process.take(response, since=since)
        terminal.write(new.output)
        if response.process_id is None and not self._ended.is_set():
            self._exit_code = response.exit_code or 0
            self._ended.set()

    async def _hang_up(self) -> None:
        with suppress(PtySessionNotFoundError):
            await self._visit.perform(ops.PTY_WRITE_STDIN, self._request(hang_up=True))

    def _request(self, **fields: object) -> m.PtyWriteStdinRequest:
        return m.PtyWriteStdinRequest.model_validate(
            {
                "session": self._visit.session,
                "operation_id": own_id(),
                "process_id": self._number,
                "offset": self._process.offset,
                "user": self._user,
                **fields,
            }
        )
