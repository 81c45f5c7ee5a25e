"""Asks process 1 of a sandbox, from the worker's event loop; see `sandbox_bubblewrap.inside.init`.

Whatever it answers comes from the sandbox: an answer is no more than JSON of a limited size.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from errno import EIO
from typing import Any, Final, TypeVar

from sandbox_bubblewrap.launch import connect
from sandbox_bubblewrap.store import Sandbox

_ResultT = TypeVar("_ResultT")

_THREADS: Final = ThreadPoolExecutor(max_workers=256, thread_name_prefix="sandbox-bubblewrap")
"""For what blocks: the threads of the event loop's own pool are few."""

_MAX_ANSWER: Final = 64 * 1024
_FIRST: Final = 32 * 1024
_BUSY_TRIES: Final = 100
_BUSY_S: Final = 0.02
_READ: Final = 256 * 1024
_GRACE_S: Final = 2.0
"""How long the output of a process that was killed is waited for."""


class NotRunning(Exception):
    """The sandbox does not run, or has come to its end meanwhile."""


class DoesNotRun(NotRunning):
    """The sandbox does not run: nothing was asked of it."""


class NothingRan(Exception):
    """The process could not be started."""

    def __init__(self, number: int, at: str) -> None:
        super().__init__(f"{at}: {os.strerror(number)}")
        self.cause = OSError(number, os.strerror(number))
        self.at = at


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended: like `subprocess`, with the negative number of a signal."""

    code: int
    stdout: bytes = b""
    stderr: bytes = b""


class Process:
    """A process of the sandbox; it goes on if this object is closed."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._received = b""
        self.terminal: int | None = None

    async def wait(self) -> int:
        """Return how the process ended: its exit code, or the negative number of a signal.

        Raises:
            NothingRan: It could not be started.
            NotRunning: The sandbox came to its end.
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
        """Return the next answer of process 1; a terminal that comes with it is kept.

        Raises:
            NotRunning: There is none.
        """
        while True:
            if len(self._received) >= 4:
                (length,) = struct.unpack(">I", self._received[:4])
                if length > _MAX_ANSWER:
                    raise NotRunning("process 1 of the sandbox answers nonsense")
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
                self.terminal = fd
            if not data:
                raise NotRunning("the sandbox came to its end")
            self._received += data

    def kill(self) -> None:
        """Kill the process and its session, if it runs."""
        with suppress(OSError):
            self._stream.send(_framed({"op": "kill"}))

    def close(self) -> None:
        """Wait for it no longer."""
        self._stream.close()


async def open_process(
    sandbox: Sandbox, request: Mapping[str, object], fds: Sequence[int]
) -> Process:
    """Ask for a process, which gets `fds`.

    Raises:
        NotRunning: The sandbox does not run.
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


async def run(
    sandbox: Sandbox,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    timeout: float | None = None,
) -> Ended:
    """Run a command to its end, and that of its output.

    Raises:
        asyncio.TimeoutError: It did not end in time; its session was killed.
        NothingRan: There is no such program, or the like.
        NotRunning: The sandbox does not run, or came to its end.
    """
    with ExitStack() as stack:
        process, outputs = await start(sandbox, argv, env=env, cwd=cwd)
        stack.callback(process.close)
        for _, transport in outputs:
            stack.callback(transport.close)
        reading = [reader.read() for reader, _ in outputs]
        return await _ending(process, _collect(process, *reading), timeout)


async def start(
    sandbox: Sandbox, argv: Sequence[str], *, env: Mapping[str, str], cwd: str
) -> tuple[Process, list[tuple[asyncio.StreamReader, asyncio.ReadTransport]]]:
    """Start a command, and return it with the readers of its stdout and stderr.

    Raises:
        NotRunning: The sandbox does not run.
    """
    request = {"op": "exec", "argv": list(argv), "env": dict(env), "cwd": cwd}
    with _Pipes() as pipes:
        outputs = [pipes.open(), pipes.open()]
        process = await open_process(sandbox, request, [theirs for _, theirs in outputs])
        try:
            return process, [await _reader(pipes.keep(ours)) for ours, _ in outputs]
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
    """Start a command at a terminal of its own, and return the descriptor of that.

    Raises:
        NothingRan: There is no process to be had.
        NotRunning: The sandbox does not run.
    """
    request = {"op": "exec", "argv": list(argv), "env": dict(env), "cwd": cwd, "tty": list(size)}
    process = await open_process(sandbox, request, [])
    try:
        answer = await process.next_answer()
        if process.terminal is None:
            raise NothingRan(int(answer.get("errno", 0)), str(answer.get("at", "terminal")))
    except BaseException:
        process.close()
        raise
    return process, process.terminal


async def file_operation(
    sandbox: Sandbox,
    name: str,
    arguments: Mapping[str, object],
    *,
    source: io.IOBase | None = None,
    target: io.IOBase,
) -> dict[str, Any] | None:
    """Perform a file operation; return what it was refused with, or None.

    Args:
        sandbox: Where.
        name: Which; see `sandbox_bubblewrap.inside.files`.
        arguments: Of the operation.
        source: What it reads.
        target: Where to write what it writes.

    Raises:
        NotRunning: The sandbox does not run, or came to its end.
        NothingRan: It had no process left for it.
        OSError: `source` or `target` failed.
    """
    request = {"op": "file", "name": name, "arguments": dict(arguments)}
    with _Pipes() as pipes, ExitStack() as stack:
        written, refused = pipes.open(), pipes.open()
        given = pipes.open(ours_writes=True) if source is not None else None
        stdin = pipes.null() if given is None else given[1]
        process = await open_process(sandbox, request, [stdin, written[1], refused[1]])
        stack.callback(process.close)
        pipes.close_theirs()
        problem = io.BytesIO()
        copies = [
            _in_thread(_drain, pipes.keep(ours), into)
            for ours, into in ((written[0], target), (refused[0], problem))
        ]
        if given is not None:
            assert source is not None
            copies.append(_in_thread(_feed, source, pipes.keep(given[0])))
        code, *_ = await _ending(process, _all(process.wait(), *copies), None)
        if code == 0:
            return None
        try:
            return dict(json.loads(problem.getvalue()))
        except ValueError:
            return {"error": "os", "errno": EIO, "text": f"it ended with {code}"}


async def _all(first: Awaitable[int], *others: Awaitable[None]) -> list[int | None]:
    return list(await asyncio.gather(first, *others))


async def _collect(process: Process, *reading: Awaitable[bytes]) -> Ended:
    waiting = asyncio.ensure_future(process.wait())
    stdout, stderr = await asyncio.gather(*reading)
    return Ended(code=await waiting, stdout=stdout, stderr=stderr)


async def _ending(
    process: Process, ending: Coroutine[Any, Any, _ResultT], timeout: float | None
) -> _ResultT:
    """Await the end of a process; kill it if it takes longer, or nobody waits any more."""
    task = asyncio.ensure_future(ending)
    try:
        await asyncio.wait({task}, timeout=timeout)
        if task.done():
            return task.result()
        raise asyncio.TimeoutError
    finally:
        if not task.done():
            process.kill()
            # What it has left behind with its output open is not waited for.
            await asyncio.wait({task}, timeout=_GRACE_S)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class _Pipes:
    """Pipes of which one end goes to a process; whatever is not kept is closed at the end."""

    def __init__(self) -> None:
        self._ours: set[int] = set()
        self._theirs: set[int] = set()

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_theirs()
        for fd in self._ours:
            os.close(fd)

    def open(self, *, ours_writes: bool = False) -> tuple[int, int]:
        """Return our end and theirs of a new pipe."""
        ours, theirs = os.pipe()
        if ours_writes:
            ours, theirs = theirs, ours
        self._ours.add(ours)
        self._theirs.add(theirs)
        return ours, theirs

    def null(self) -> int:
        """Return a descriptor of theirs without content."""
        fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._theirs.add(fd)
        return fd

    def keep(self, ours: int) -> int:
        """Leave it to the caller to close an end of ours."""
        self._ours.remove(ours)
        return ours

    def close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())


def _in_thread(function: Callable[..., None], *arguments: object) -> asyncio.Future[None]:
    return asyncio.get_running_loop().run_in_executor(_THREADS, function, *arguments)


def _drain(fd: int, into: io.IOBase) -> None:
    with open(fd, "rb", buffering=0) as pipe:
        shutil.copyfileobj(pipe, into, _READ)


def _feed(source: io.IOBase, fd: int) -> None:
    with open(fd, "wb", buffering=0) as pipe, suppress(BrokenPipeError):
        while piece := source.read(_READ):
            view = memoryview(piece.encode() if isinstance(piece, str) else piece)
            while view:
                view = view[pipe.write(view) :]


async def _reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=_READ)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), io.FileIO(fd, "rb")
    )
    return reader, transport


async def _connect(sandbox: Sandbox) -> socket.socket:
    for _ in range(_BUSY_TRIES):
        with suppress(BlockingIOError):  # It has not accepted those before this one yet.
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
