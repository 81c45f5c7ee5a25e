"""Hosts on this machine, each with its own name, network and ``/tmp``.

A host is a thread in its own namespaces, which its workers enter as they start. It also has the
folders below ``/tmp`` that Python and the test need. It reaches the Temporal server at the usual
address, through a relay that can be interrupted like a cable.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from faults import harness

from sandbox_core.testing.worker_process import WorkerProcess

_T = TypeVar("_T")

_TMP = Path("/tmp")
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWNET = 0x00020000, 0x04000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1

_NAMESPACES = "SANDBOX_TEST_NAMESPACES"
"""Tells a worker where in ``/proc`` the namespaces of its host are."""


class Host:
    """One host, with the workers on it."""

    def __init__(self, name: str, address: str, inside: ThreadPoolExecutor) -> None:
        self.name = name
        self._address, self._inside = address, inside
        self._workers: list[WorkerProcess] = []
        self._connections: set[asyncio.StreamWriter] = set()
        self._connected = True

    async def start(self, queue: str, *workflows: type, slots: int = 100) -> WorkerProcess:
        """Start a worker with slots for activities on the host, and return it when it polls."""
        thread = await self._do(threading.get_native_id)
        variables = {
            harness.SLOTS_VARIABLE: str(slots),
            _NAMESPACES: f"/proc/{os.getpid()}/task/{thread}/ns",
        }
        worker = harness.start_worker(
            self._address, queue, *workflows, variables=variables, target=f"{__name__}:run"
        )
        self._workers.append(worker)
        await asyncio.to_thread(worker.wait_until_ready)
        return worker

    async def glob(self, pattern: str) -> list[str]:
        """Return the paths on the host that match."""
        found = await self._do(lambda: sorted(map(str, Path("/").glob(pattern.lstrip("/")))))
        return list(found)

    async def _do(self, what: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._inside, what)

    # --- The cable --------------------------------------------------------------------------------

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """Let nothing on the host reach the server for the duration."""
        self._connected = False
        for connection in tuple(self._connections):
            connection.transport.abort()
        try:
            yield
        finally:
            self._connected = True

    @asynccontextmanager
    async def _relay(self) -> AsyncIterator[None]:
        server, port = self._address.split(":")
        listener = await self._do(lambda: socket.create_server((server, int(port))))

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not self._connected:
                writer.transport.abort()
                return
            onward, back = await asyncio.open_connection(server, int(port))
            pair = {writer, back}
            self._connections |= pair
            try:
                await asyncio.gather(_copy(reader, back), _copy(onward, writer))
            finally:
                self._connections -= pair

        async with await asyncio.start_server(relay, sock=listener) as accepting:
            try:
                yield
            finally:
                for worker in self._workers:
                    worker.kill()
                accepting.close()
                for connection in tuple(self._connections):
                    connection.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def hosts(address: str, shared: Path, *names: str) -> AsyncIterator[list[Host]]:
    """Yield hosts with these names, all of which have the folder `shared`; it takes root."""
    async with AsyncExitStack() as stack:
        started = []
        for name in names:
            tmp = stack.enter_context(TemporaryDirectory(prefix="host-", dir=_TMP))
            inside = ThreadPoolExecutor(1, initializer=_become_host, initargs=(name, tmp, shared))
            stack.callback(inside.shutdown)
            host = Host(name, address, inside)
            await stack.enter_async_context(host._relay())
            started.append(host)
        yield started


def run(address: str, queue: str, *workflows: str) -> None:
    """Run one worker as `harness.run` does, on the host that its environment names."""
    here = Path.cwd()
    for name in ("uts", "net", "mnt"):
        with Path(os.environ[_NAMESPACES], name).open() as namespace:
            _check(ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0))
    os.chdir(here)  # It was left with the file systems.
    harness.run(address, queue, *workflows)


def _become_host(name: str, tmp: str, shared: Path) -> None:
    """Move the calling thread to a host that nothing else is on yet; `tmp` becomes its ``/tmp``."""
    everything = _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWNET
    _check(ctypes.CDLL(None, use_errno=True).unshare(everything))
    socket.sethostname(name)
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "-o", "mode=1777", name, tmp)
    for needed in (shared, Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]):
        if needed.is_relative_to(_TMP):
            place = Path(tmp) / needed.relative_to(_TMP)
            place.mkdir(parents=True, exist_ok=True)
            _mount("--bind", str(needed), str(place))
    _mount("--move", tmp, str(_TMP))


def _check(answer: int) -> None:
    if answer != 0:
        raise OSError(ctypes.get_errno(), "hosts cannot be made and entered: it takes root")


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
