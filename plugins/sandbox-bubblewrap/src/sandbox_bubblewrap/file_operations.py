"""File operations in a sandbox; see `sandbox_bubblewrap.inside.files`."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from errno import EIO
from typing import Any, Final

from sandbox_bubblewrap.connection import NotRunning, ending, open_process
from sandbox_bubblewrap.pipes import READ, Pipes
from sandbox_bubblewrap.store import Sandbox

_THREADS: Final = ThreadPoolExecutor(max_workers=256, thread_name_prefix="sandbox-bubblewrap")
"""For blocking calls: the event loop's own pool has few threads."""


async def open_file(
    sandbox: Sandbox, arguments: Mapping[str, object]
) -> tuple[io.FileIO | None, dict[str, Any] | None]:
    """Open a regular file for reading; return it, or the refusal.

    Raises:
        NotRunning: The sandbox is not running, or ended meanwhile.
        NothingRan: No process was left for the operation.
    """
    refused, descriptor = await _perform(sandbox, "open", arguments, None, io.BytesIO())
    if descriptor is None:
        return None, refused or {"error": "os", "errno": EIO}
    file = io.FileIO(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise NotRunning("process 1 of the sandbox did not send a regular file")
    return file, None


async def perform(
    sandbox: Sandbox,
    name: str,
    arguments: Mapping[str, object],
    *,
    source: io.IOBase | None = None,
    target: io.IOBase,
) -> dict[str, Any] | None:
    """Perform a file operation; return the refusal, or None.

    Args:
        sandbox: The sandbox.
        name: The operation; see `sandbox_bubblewrap.inside.files`.
        arguments: The operation's arguments.
        source: The operation's input.
        target: Where to write the operation's output.

    Raises:
        NotRunning: The sandbox is not running, or ended meanwhile.
        NothingRan: No process was left for the operation.
        OSError: `source` or `target` failed.
    """
    refused, descriptor = await _perform(sandbox, name, arguments, source, target)
    if descriptor is not None:
        os.close(descriptor)
    return refused


async def _perform(
    sandbox: Sandbox,
    name: str,
    arguments: Mapping[str, object],
    source: io.IOBase | None,
    target: io.IOBase,
) -> tuple[dict[str, Any] | None, int | None]:
    """As `perform`; also return the descriptor that the operation opened, which is the caller's."""
    request = {"op": "file", "name": name, "arguments": dict(arguments)}
    with Pipes() as pipes, ExitStack() as stack:
        written, refused = pipes.open(), pipes.open()
        fed = pipes.open(ours_writes=True) if source is not None else None
        stdin = pipes.null() if fed is None else fed[1]
        process = await open_process(sandbox, request, [stdin, written[1], refused[1]])
        stack.callback(process.close)
        pipes.close_theirs()
        problem = io.BytesIO()
        copies = [
            _in_thread(_drain, pipes.keep(ours), into)
            for ours, into in ((written[0], target), (refused[0], problem))
        ]
        if fed is not None:
            assert source is not None
            copies.append(_in_thread(_feed, source, pipes.keep(fed[0])))
        code, *_ = await ending(process, _all(process.wait(), *copies), None)
        refusal = None if code == 0 else _refusal(problem.getvalue(), code)
        return refusal, process.take()


def _refusal(problem: bytes, code: int | None) -> dict[str, Any]:
    try:
        return dict(json.loads(problem))
    except ValueError:
        return {"error": "os", "errno": EIO, "text": f"it ended with {code}"}


async def _all(first: Awaitable[int], *others: Awaitable[None]) -> list[int | None]:
    return list(await asyncio.gather(first, *others))


def _in_thread(function: Callable[..., None], *arguments: object) -> asyncio.Future[None]:
    return asyncio.get_running_loop().run_in_executor(_THREADS, function, *arguments)


def _drain(fd: int, into: io.IOBase) -> None:
    with open(fd, "rb", buffering=0) as pipe:
        shutil.copyfileobj(pipe, into, READ)


def _feed(source: io.IOBase, fd: int) -> None:
    with open(fd, "wb", buffering=0) as pipe, suppress(BrokenPipeError):
        while piece := source.read(READ):
            view = memoryview(piece.encode() if isinstance(piece, str) else piece)
            while view:
                view = view[pipe.write(view) :]
