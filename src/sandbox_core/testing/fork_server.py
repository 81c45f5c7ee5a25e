"""Starts Python processes quickly, by forking one that has already imported their modules.

A worker's imports cost seconds of CPU time at every start. Here they are imported once, by a server
with one thread and no event loop, so that it is safe to fork. A forked process has its own session,
environment and standard streams, like one started by `subprocess`.

Linux and macOS only.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any

_MODULE = "sandbox_core.testing.fork_server"
_INTEGER = struct.Struct("!i")
_LENGTH = struct.Struct("!I")
_FDS = 4
"""The standard streams, and the pipe for the exit code."""


class ForkedProcess:
    """A process forked by the server, which leads its own session and process group."""

    def __init__(self, pid: int, exit_code: int) -> None:
        self.pid = pid
        self._pipe: int | None = exit_code
        self._code: int | None = None
        self._reading = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self._pipe is not None and not select.select([self._pipe], [], [], 0)[0]:
            return None
        return self.wait()

    def wait(self) -> int:
        """Wait for the process to end; return its exit code, or minus the signal that killed it.

        Raises:
            RuntimeError: The server was killed, and with it the exit code was lost.
        """
        with self._reading:
            if self._pipe is not None:
                code = os.read(self._pipe, _INTEGER.size)
                os.close(self._pipe)
                self._pipe = None
                self._code = _INTEGER.unpack(code)[0] if code else None
        if self._code is None:
            raise RuntimeError(f"the fork server has ended before its process {self.pid}")
        return self._code

    def send_signal(self, number: signal.Signals) -> None:
        """Send the process a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process and its process group with SIGKILL."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait()


class ForkServer:
    """A server that forks processes, and kills them when it is closed or its user's process ends.

    The processes inherit the server's surroundings, for example the namespaces of the thread that
    creates it.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C must reach only the server's user.
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._socket = ours
        self._asking = threading.Lock()

    def start(
        self,
        target: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        stdin: IO[Any] | None = None,
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        folder: Path | None = None,
        imports: Sequence[str] = (),
    ) -> ForkedProcess:
        """Fork a process that calls a function.

        Args:
            target: ``module:function``; the server imports the module once, before it forks.
            arguments: The function's arguments.
            env: The whole environment; None for the caller's.
            stdin: Where the input comes from; None for nowhere.
            stdout: Where the output goes; None for the caller's.
            stderr: Likewise.
            folder: Its working directory; None for the caller's.
            imports: Modules that the server imports once as well, before it forks. One that does
                not import, or starts a thread, is left to the process.

        Raises:
            RuntimeError: The module cannot be imported, or its import started a thread.
        """
        request = json.dumps(
            {
                "target": target,
                "arguments": arguments,
                "env": dict(os.environ if env is None else env),
                "path": sys.path,
                "folder": str(folder or Path.cwd()),
                "imports": imports,
            }
        ).encode()
        exit_code, theirs = os.pipe()
        try:
            with self._asking, Path(os.devnull).open("rb") as nowhere:
                outputs = [stdout.fileno() if stdout else 1, stderr.fileno() if stderr else 2]
                fds = [(stdin or nowhere).fileno(), *outputs, theirs]
                socket.send_fds(self._socket, [_LENGTH.pack(len(request))], fds)
                self._socket.sendall(request)
                answer = json.loads(_receive(self._socket, _length(self._socket.recv(4))))
        except BaseException:
            os.close(exit_code)
            raise
        finally:
            os.close(theirs)
        if "error" in answer:
            os.close(exit_code)
            raise RuntimeError(f"the fork server cannot start {target}: {answer['error']}")
        return ForkedProcess(answer["pid"], exit_code)

    def close(self) -> None:
        """Kill the running processes, and end the server."""
        self._socket.close()
        self._process.wait()


@functools.cache
def fork_server() -> ForkServer:
    """Return the server of this process, which is closed when the process exits."""
    server = ForkServer()
    atexit.register(server.close)
    return server


# --- The server -----------------------------------------------------------------------------------


class _Server:
    """The server, in its own process."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._tried = set[str]()
        self._exits: dict[int, int] = {}
        """The pipes for the exit codes, by process id."""

    def serve(self) -> Callable[[], object] | None:
        """Serve requests; return the function to call in each fork, and None in the end."""
        ended, wake = os.pipe()
        os.set_blocking(ended, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(wake)
        while True:
            ready, _, _ = select.select([self._control.fileno(), ended], [], [])
            if ended in ready:
                os.read(ended, 4096)
                self._reap(os.WNOHANG)
            if self._control.fileno() in ready:
                length, fds, _, _ = socket.recv_fds(self._control, _LENGTH.size, _FDS)
                if not length:
                    self._end()
                    return None
                request = json.loads(_receive(self._control, _length(length)))
                todo = self._fork(request, fds)
                if todo is not None:
                    signal.set_wakeup_fd(-1)
                    for left in (ended, wake):
                        os.close(left)
                    return todo

    def _fork(self, request: dict[str, Any], fds: list[int]) -> Callable[[], object] | None:
        *streams, exit_code = fds
        try:
            sys.path[:] = request["path"]
            module, _, function = request["target"].partition(":")
            target = getattr(importlib.import_module(module), function)
            _check_threads(module)
            for other in request["imports"]:
                self._import(other)
        except Exception as error:  # noqa: BLE001 - of a module that is not ours; the user hears it
            self._answer({"error": f"{type(error).__name__}: {error}"})
            os.close(exit_code)
        else:
            # No process looks for garbage among what all of them have imported.
            gc.freeze()
            pid = os.fork()
            if pid == 0:
                gc.enable()
                self._become_worker(request, streams)
                for pipe in (exit_code, *self._exits.values()):
                    os.close(pipe)
                return functools.partial(target, *request["arguments"])
            self._exits[pid] = exit_code
            self._answer({"pid": pid})
        for stream in streams:
            os.close(stream)
        return None

    def _import(self, module: str) -> None:
        """Import a module, unless that fails or starts a thread, as a process tries beforehand."""
        if module in self._tried or module in sys.modules:
            return
        self._tried.add(module)
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(Exception):
                importlib.import_module(module)
                code = int(_threads() > 1)
            os._exit(code)
        if os.waitpid(pid, 0)[1] == 0:
            importlib.import_module(module)

    def _become_worker(self, request: dict[str, Any], streams: list[int]) -> None:
        self._control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for stream, standard in zip(streams, (0, 1, 2), strict=True):
            os.dup2(stream, standard)
            os.close(stream)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["folder"])
        sys.argv[:] = [request["target"], *request["arguments"]]
        # Python has read it from the server's environment.
        tempfile.tempdir = None
        time.tzset()
        importlib.invalidate_caches()

    def _answer(self, answer: dict[str, object]) -> None:
        content = json.dumps(answer).encode()
        self._control.sendall(_LENGTH.pack(len(content)) + content)

    def _reap(self, options: int) -> None:
        for pid, pipe in tuple(self._exits.items()):
            ended, status = os.waitpid(pid, options)
            if ended:
                with suppress(BrokenPipeError):  # Nobody waits for it.
                    os.write(pipe, _INTEGER.pack(os.waitstatus_to_exitcode(status)))
                os.close(pipe)
                del self._exits[pid]

    def _end(self) -> None:
        for pid in self._exits:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._reap(0)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing: without a handler it would not wake the server."""


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


def _check_threads(module: str) -> None:
    if _threads() > 1:
        raise RuntimeError(f"importing {module} starts threads, which makes forking unsafe")


# --- Messages: a length, and that many bytes ------------------------------------------------------


def _length(received: bytes) -> int:
    if len(received) != _LENGTH.size:
        raise RuntimeError("the fork server has ended")
    length: int = _LENGTH.unpack(received)[0]
    return length


def _receive(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        piece = connection.recv(length - len(content))
        if not piece:
            raise RuntimeError("the fork server has ended")
        content += piece
    return content


def _main() -> None:
    gc.disable()  # The server only imports; looking for garbage takes a sixth of that time.
    todo = _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if todo is not None:
        todo()


if __name__ == "__main__":
    _main()
