"""Sends requests to process 1 of a sandbox (`sandbox_bubblewrap.inside.init`), asynchronously.

Answers come from the sandbox and are not trusted: they are parsed only as JSON of a limited size.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from sandbox_bubblewrap.launch import connect
from sandbox_bubblewrap.store import Sandbox

_ResultT = TypeVar("_ResultT")

_MAX_ANSWER: Final = 64 * 1024
_FIRST: Final = 32 * 1024
_BUSY_TRIES: Final = 100
_BUSY_S: Final = 0.02
_GRACE_S: Final = 2.0
"""How long to wait for the output of a killed process."""


class NotRunning(Exception):
    """The sandbox is not running, or ended meanwhile."""


class DoesNotRun(NotRunning):
    """The sandbox is not running: no request was made."""


class NothingRan(Exception):
    """The process could not be started."""

    def __init__(self, number: int, at: str) -> None:
        super().__init__(f"{at}: {os.strerror(number)}")
        self.cause = OSError(number, os.strerror(number))
        self.at = at


class Process:
    """A process of the sandbox, which keeps running if this object is closed."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._received = b""
        self.given: int | None = None

    async def wait(self) -> int:
        """Wait for the process to end; return its exit code, or minus a signal's number.

        Raises:
            NothingRan: It could not be started.
            NotRunning: The sandbox ended.
        """
        while True:
            answer = await self.next_answer()
            if "exit" in answer:
                return int(answer["exit"])
            if "signal" in answer:
                return -int(answer["signal"])
            if "errno" in answer:
                raise NothingRan(int(answer["errno"]), str(answer["at"]))

    async def next_answer(self) -> dict[str, Any]:
        """Return the next answer of process 1, and keep a descriptor that comes with it.

        Raises:
            NotRunning: The sandbox ended without an answer.
        """
        while True:
            if len(self._received) >= 4:
                (length,) = struct.unpack(">I", self._received[:4])
                if length > _MAX_ANSWER:
                    raise NotRunning("process 1 of the sandbox sent an invalid answer")
                if len(self._received) >= 4 + length:
                    answer = json.loads(self._received[4 : 4 + length])
                    self._received = self._received[4 + length :]
                    return dict(answer)
            await _readable(self._stream)
            try:
                data, fds, _, _ = socket.recv_fds(
                    self._stream, _MAX_ANSWER, 1, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                continue
            except OSError as error:
                raise NotRunning(str(error)) from error
            for fd in fds:
                if self.given is not None:
                    os.close(self.given)
                self.given = fd
            if not data:
                raise NotRunning("the sandbox ended")
            self._received += data

    def kill(self) -> None:
        """Kill the process and its session, if it is running."""
        with suppress(OSError):
            self._stream.send(_framed({"op": "kill"}))

    def close(self) -> None:
        """Stop waiting for the process, and close a descriptor that was not taken."""
        self._stream.close()
        if self.given is not None:
            os.close(self.given)
            self.given = None

    def take(self) -> int | None:
        """Return the descriptor from process 1, which the caller closes."""
        given, self.given = self.given, None
        return given


async def open_process(
    sandbox: Sandbox, request: Mapping[str, object], fds: Sequence[int]
) -> Process:
    """Request a process, which gets `fds`.

    Raises:
        NotRunning: The sandbox is not running.
    """
    data = _framed(request)
    stream = await _connect(sandbox)
    try:
        sent = socket.send_fds(stream, [data[:_FIRST]], fds)
        if sent < len(data):
            await asyncio.get_running_loop().sock_sendall(stream, data[sent:])
    except OSError as error:
        stream.close()
        raise NotRunning(str(error)) from error
    except BaseException:
        stream.close()
        raise
    return Process(stream)


async def ending(
    process: Process, end: Coroutine[Any, Any, _ResultT], timeout: float | None
) -> _ResultT:
    """Await the end of a process; kill it at its timeout, or if the caller is cancelled."""
    task = asyncio.ensure_future(end)
    try:
        await asyncio.wait({task}, timeout=timeout)
        if task.done():
            return task.result()
        raise asyncio.TimeoutError
    finally:
        if not task.done():
            process.kill()
            # Its remaining descendants may hold the output open: do not wait for them.
            await asyncio.wait({task}, timeout=_GRACE_S)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _connect(sandbox: Sandbox) -> socket.socket:
    for _ in range(_BUSY_TRIES):
        with suppress(BlockingIOError):  # Its queue of connections is full.
            return _connect_now(sandbox)
        await asyncio.sleep(_BUSY_S)
    raise NotRunning(f"process 1 of sandbox {sandbox.id} does not answer")


def _connect_now(sandbox: Sandbox) -> socket.socket:
    try:
        return connect(sandbox)
    except BlockingIOError:
        raise
    except OSError as error:
        raise DoesNotRun(f"sandbox {sandbox.id} does not run") from error


async def _readable(stream: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(stream, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(stream)


def _framed(request: Mapping[str, object]) -> bytes:
    data = json.dumps(request).encode()
    return struct.pack(">I", len(data)) + data
