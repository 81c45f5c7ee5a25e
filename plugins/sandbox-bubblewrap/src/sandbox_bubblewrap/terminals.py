"""The polled processes of a session, with or without a terminal.

They are numbered, collected and evicted as in the SDK's own backends. Such a terminal ends with the
worker that opened it; sandbox-core's helper keeps its own terminals alive.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EIO
from typing import Final

from agents.sandbox.errors import PtySessionNotFoundError
from agents.sandbox.session.pty_output import collect_pty_output
from agents.sandbox.session.pty_types import (
    PTY_PROCESSES_MAX,
    PTY_PROCESSES_WARNING,
    PtyExecUpdate,
    allocate_pty_process_id,
    clamp_pty_yield_time_ms,
    process_id_to_prune_from_meta,
    resolve_pty_write_yield_time_ms,
)

from sandbox_bubblewrap import commands
from sandbox_bubblewrap.connection import NothingRan, NotRunning, Process
from sandbox_bubblewrap.store import Sandbox

logger = logging.getLogger(__name__)

_SIZE: Final = (24, 80)
_READ: Final = 64 * 1024
_KEPT: Final = 4 * 1024 * 1024
_ECHO_S: Final = 0.1
"""How long to wait for a terminal to react to input, as in the SDK's backends."""


@dataclass(eq=False)
class _Entry:
    process: Process
    terminal: int | None
    transports: list[asyncio.BaseTransport] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    chunks: deque[bytes] = field(default_factory=deque)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    notify: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    last_used: float = field(default_factory=time.monotonic)
    exit_code: int | None = None

    def add(self, chunk: bytes) -> None:
        """Buffer output until it is polled; if the buffer is full, drop the oldest."""
        self.chunks.append(chunk)
        while sum(map(len, self.chunks)) > _KEPT:
            self.chunks.popleft()
        self.notify.set()


class Terminals:
    """The open processes of one session."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._starting: set[int] = set()

    async def start(
        self,
        sandbox: Sandbox,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        tty: bool,
        yield_time_s: float | None,
        max_output_tokens: int | None,
    ) -> PtyExecUpdate:
        """Start a process, and return what it wrote within the yield time.

        Raises:
            NothingRan: It could not be started, for example because there is no such program.
            NotRunning: The sandbox is not running.
        """
        number = allocate_pty_process_id({*self._entries, *self._starting})
        self._starting.add(number)
        try:
            entry = await self._open(sandbox, argv, env=env, cwd=cwd, tty=tty)
            self._make_room()
            self._entries[number] = entry
        finally:
            self._starting.discard(number)
        if len(self._entries) >= PTY_PROCESSES_WARNING:
            logger.warning("a session has %d open processes", len(self._entries))
        milliseconds = 10_000 if yield_time_s is None else int(yield_time_s * 1000)
        return await self._update(
            number, entry, clamp_pty_yield_time_ms(milliseconds), max_output_tokens
        )

    async def write(
        self, number: int, chars: str, *, yield_time_s: float | None, max_output_tokens: int | None
    ) -> PtyExecUpdate:
        """Write to a terminal, and return what its process has written since the last poll.

        Raises:
            PtySessionNotFoundError: There is no process with this number.
            RuntimeError: The process has no terminal.
        """
        entry = self._entries.get(number)
        if entry is None:
            raise PtySessionNotFoundError(session_id=number)
        if chars:
            if entry.terminal is None:
                raise RuntimeError("stdin is not available for this process")
            await self._type(entry, chars.encode("utf-8"))
            await asyncio.sleep(_ECHO_S)
        milliseconds = 250 if yield_time_s is None else int(yield_time_s * 1000)
        milliseconds = resolve_pty_write_yield_time_ms(
            yield_time_ms=milliseconds, input_empty=not chars
        )
        entry.last_used = time.monotonic()
        return await self._update(number, entry, milliseconds, max_output_tokens)

    async def end_all(self) -> None:
        """Kill all open processes."""
        entries, self._entries = list(self._entries.values()), {}
        for entry in entries:
            self._end(entry)
        tasks = [task for entry in entries for task in entry.tasks]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _open(
        self,
        sandbox: Sandbox,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        tty: bool,
    ) -> _Entry:
        if tty:
            env = {"TERM": "xterm-256color", **env}
            process, terminal = await commands.open_terminal(
                sandbox, argv, env=env, cwd=cwd, size=_SIZE
            )
            os.set_blocking(terminal, False)
            entry = _Entry(process=process, terminal=terminal)
            pumps = [asyncio.create_task(self._pump_terminal(entry, terminal))]
        else:
            process, outputs = await commands.start(sandbox, argv, env=env, cwd=cwd)
            entry = _Entry(process=process, terminal=None)
            entry.transports = [transport for _, transport in outputs]
            pumps = [asyncio.create_task(self._pump(entry, reader)) for reader, _ in outputs]
        entry.tasks = [*pumps, asyncio.create_task(self._watch(entry, pumps))]
        return entry

    async def _pump(self, entry: _Entry, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(_READ):
            entry.add(chunk)

    async def _pump_terminal(self, entry: _Entry, terminal: int) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def read() -> None:
            try:
                chunk = os.read(terminal, _READ)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != EIO:  # Linux's error if no process has the terminal open.
                    logger.warning("a terminal cannot be read: %s", error)
                chunk = b""
            if chunk:
                entry.add(chunk)
            else:
                loop.remove_reader(terminal)
                ended.set()

        loop.add_reader(terminal, read)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(terminal)

    async def _watch(self, entry: _Entry, pumps: list[asyncio.Task[None]]) -> None:
        try:
            entry.exit_code = await entry.process.wait()
        except NothingRan as error:
            entry.add(f"{error}\n".encode())
            entry.exit_code = 127
        except NotRunning:
            entry.exit_code = -9
        await asyncio.gather(*pumps, return_exceptions=True)
        entry.closed.set()
        entry.notify.set()

    async def _type(self, entry: _Entry, data: bytes) -> None:
        assert entry.terminal is not None
        loop = asyncio.get_running_loop()
        while data and not entry.closed.is_set():
            try:
                data = data[os.write(entry.terminal, data) :]
            except BlockingIOError:  # noqa: PERF203 - it is tried again
                writable = asyncio.Event()
                loop.add_writer(entry.terminal, writable.set)
                try:
                    await writable.wait()
                finally:
                    loop.remove_writer(entry.terminal)
            except OSError:
                return  # The process has ended; the next update reports that.

    async def _update(
        self, number: int, entry: _Entry, milliseconds: int, max_output_tokens: int | None
    ) -> PtyExecUpdate:
        output, tokens, closed = await collect_pty_output(
            output_chunks=entry.chunks,
            output_lock=entry.lock,
            output_notify=entry.notify,
            is_done=entry.closed.is_set,
            yield_time_ms=milliseconds,
            max_output_tokens=max_output_tokens,
        )
        if closed:
            self._entries.pop(number, None)
            self._end(entry)
        return PtyExecUpdate(
            process_id=None if closed else number,
            output=output,
            exit_code=entry.exit_code if closed else None,
            original_token_count=tokens,
        )

    def _make_room(self) -> None:
        if len(self._entries) < PTY_PROCESSES_MAX:
            return
        number = process_id_to_prune_from_meta(
            [(n, entry.last_used, entry.closed.is_set()) for n, entry in self._entries.items()]
        )
        if number is not None:
            self._end(self._entries.pop(number))

    def _end(self, entry: _Entry) -> None:
        entry.process.kill()
        entry.process.close()
        for task in entry.tasks:
            task.cancel()
        for transport in entry.transports:
            transport.close()
        if entry.terminal is not None:
            asyncio.get_running_loop().remove_reader(entry.terminal)
            with suppress(OSError):
                os.close(entry.terminal)
            entry.terminal = None
        entry.closed.set()
        entry.notify.set()
