"""Process 1 of a sandbox: starts commands and file operations for workers outside.

It listens on a Unix socket bound to a path outside the sandbox, where no command can reach it. A
connection carries one request, a JSON object after its length in four bytes (most significant
first), and any number of answers. Descriptors are sent with the request.

========  =============================================  ===========================================
``op``    fields                                         answers
========  =============================================  ===========================================
``ping``                                                 ``{"version": 1}``
``stop``                                                 end of file, when no process is left
``exec``  ``argv``, ``env``, ``cwd``; descriptors of     ``{"exit": CODE}``, ``{"signal": NUMBER}``,
          stdout and stderr, or ``tty``, rows and        or ``{"errno": N, "at": STEP}`` if nothing
          columns of a terminal                          ran; before it, with ``tty``,
                                                         ``{"tty": true}`` and the terminal
``file``  ``name``, ``arguments``; three descriptors     ``{"exit": CODE}``, before it with an
                                                         opened file ``{"file": true}``: see `files`
``kill``  on the connection of one of these two          none; its session is killed
========  =============================================  ===========================================

Closing a connection ends nothing: its process keeps running. As process 1 of its namespace this
process gets no signals from inside, and other processes cannot access its memory.
"""

# No pathlib: it would take a third of the start-up time.
# ruff: noqa: PTH118, PTH123, PTH208

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import gc
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from sandbox_bubblewrap.inside import files

VERSION = 1

_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_MAX_REQUEST = 32 * 1024 * 1024
_MAX_FDS = 3
_KILL_ROUNDS = 50


class Connection:
    """One request, and the process started for it."""

    def __init__(self, server: Server, stream: socket.socket) -> None:
        self._server, self._stream = server, stream
        self._received = bytearray()
        self._fds: list[int] = []
        self._asked = False
        self._pid: int | None = None
        self._failure = -1

    def on_readable(self) -> None:
        """Read available data, and carry out the request once it is complete."""
        try:
            data, ancillary, _, _ = self._stream.recvmsg(
                1 << 20, socket.CMSG_SPACE(_MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._fds += array.array("i", content)
        self._received += data
        while len(self._received) >= 4:
            (length,) = struct.unpack(">I", self._received[:4])
            if length > _MAX_REQUEST:
                data = b""
                break
            if len(self._received) < 4 + length:
                break
            request = json.loads(self._received[4 : 4 + length])
            del self._received[: 4 + length]
            self._on_request(request)
        if not data:
            self._close()

    def _on_request(self, request: dict[str, Any]) -> None:
        op = request["op"]
        if op == "ping":
            self._answer({"version": VERSION})
        elif op == "stop":
            self._server.stop()
        elif op == "kill":
            if self._pid is not None:
                kill_session(self._pid)
        elif not self._asked:
            self._asked = True
            self._start(request)

    def _start(self, request: dict[str, Any]) -> None:
        terminal = None
        try:
            if "tty" in request:
                terminal, inner = os.openpty()
                fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", *request["tty"], 0, 0))
                self._fds = [inner]
            self._failure, failing = os.pipe()
            os.set_blocking(self._failure, False)
            try:
                self._pid = os.fork()
                if not self._pid:
                    self._server.become(request, self._fds, failing, self._stream)
            finally:
                os.close(failing)
            self._server.started[self._pid] = self
            if terminal is not None:
                self._answer({"tty": True}, [terminal])
        except OSError as error:
            self._answer({"errno": error.errno, "at": "fork"})
        finally:
            for fd in (*self._fds, *([] if terminal is None else [terminal])):
                os.close(fd)
            self._fds = []

    def on_exit(self, status: int) -> None:
        """Answer how the request's process ended."""
        self._pid = None
        try:
            failed = os.read(self._failure, 256)
        except BlockingIOError:
            failed = b""
        os.close(self._failure)
        if failed:
            number, at = failed.decode().split()
            self._answer({"errno": int(number), "at": at})
        elif os.WIFSIGNALED(status):
            self._answer({"signal": os.WTERMSIG(status)})
        else:
            self._answer({"exit": os.WEXITSTATUS(status)})

    def _answer(self, content: dict[str, Any], fds: Sequence[int] = ()) -> None:
        with suppress(OSError):  # Nobody waits for it any longer.
            send(self._stream, content, fds)

    def _close(self) -> None:
        self._server.selector.unregister(self._stream)
        self._stream.close()
        for fd in self._fds:
            os.close(fd)
        self._fds = []


def send(stream: socket.socket, content: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send an answer, and descriptors with it.

    Raises:
        OSError: Nobody receives it.
    """
    data = json.dumps(content).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    stream.sendmsg([struct.pack(">I", len(data)) + data], rights, socket.MSG_NOSIGNAL)


class Server:
    """Answers requests until it is told to stop."""

    def __init__(self, listener: socket.socket, limits: dict[str, int]) -> None:
        self._listener, self._limits = listener, limits
        self.started: dict[int, Connection] = {}
        self.selector = selectors.DefaultSelector()
        self._woken, waking = os.pipe()
        for fd in (self._woken, waking):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        listener.listen(128)
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, self._accept)
        self.selector.register(self._woken, selectors.EVENT_READ, self._reap)

    def serve(self) -> NoReturn:
        """Answer requests."""
        while True:
            for key, _ in self.selector.select():
                handle: Callable[[], None] = key.data
                handle()

    def _accept(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:
            return
        stream.setblocking(False)
        connection = Connection(self, stream)
        self.selector.register(stream, selectors.EVENT_READ, connection.on_readable)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                connection = self.started.pop(pid, None)
                if connection is not None:
                    connection.on_exit(status)

    def stop(self) -> NoReturn:
        """End every process of the sandbox, this one last."""
        self._listener.close()
        while True:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                os._exit(0)

    def become(
        self, request: dict[str, Any], fds: list[int], failing: int, stream: socket.socket
    ) -> NoReturn:
        """Turn this child into the requested process; write an error to `failing`."""
        step = "setup"
        try:
            os.setsid()
            if "tty" in request:
                fds = fds * 3
                fcntl.ioctl(fds[0], termios.TIOCSCTTY, 0)
            if len(fds) == 2:
                fds = [os.open("/dev/null", os.O_RDONLY), *fds]
            for target, fd in enumerate(fds):
                os.dup2(fd, target)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them.
                signal.signal(number, signal.SIG_DFL)
            for name, value in self._limits.items():
                self._limit(getattr(resource, name), value)
            if request["op"] == "file":
                self._listener.close()

                def give(fd: int) -> None:
                    send(stream, {"file": True}, [fd])

                os._exit(files.run(request["name"], request["arguments"], give))
            step = "chdir"
            os.chdir(request["cwd"])
            step = "exec"
            execute(request["argv"], request["env"])
        except BaseException as error:  # noqa: BLE001 - it must never go on as a second process 1
            why = getattr(error, "errno", None) or errno.EINVAL
            os.write(failing, b"%d %s" % (why, step.encode()))
        finally:
            os._exit(127)

    def _limit(self, which: int, value: int) -> None:
        _, hard = resource.getrlimit(which)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(which, (value, value))


def execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Replace this process with a program, which is looked up in the PATH of `env`.

    Raises:
        OSError: The program does not exist or cannot be executed.
    """
    # Not `os.execvpe`, which first imports a module, in every child.
    folders = [""] if "/" in argv[0] else env.get("PATH", os.defpath).split(":")
    problem = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in folders:
        try:
            os.execve(os.path.join(folder, argv[0]), argv, env)  # noqa: S606 - there is no shell
        except (FileNotFoundError, NotADirectoryError):  # noqa: PERF203 - it is tried in each folder
            continue
        except PermissionError as error:
            problem = error  # type: ignore[assignment]  # Of the same family.
    raise problem


def kill_session(leader: int) -> None:
    """Kill the processes of a session until none is left."""
    for _ in range(_KILL_ROUNDS):
        found = False
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with suppress(OSError, IndexError):
                with open(f"/proc/{name}/stat", "rb") as stat:
                    state, _, _, session = stat.read().rpartition(b")")[2].split()[:4]
                if int(session) == leader and state not in b"ZX":
                    os.kill(int(name), signal.SIGKILL)
                    found = True
        if not found:
            return


def main() -> NoReturn:
    """Serve a socket.

    The arguments are the socket's descriptor, a descriptor that reports when this process is in its
    control groups, one on which to report that it serves, and the limits of commands.

    Raises:
        OSError: The process cannot be protected from the others.
    """
    listening, going, readying = map(int, sys.argv[1:4])
    limits = json.loads(sys.argv[4])
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in (listening, going, readying):
            with suppress(OSError):  # The descriptor of the listing is already closed.
                os.close(int(name))
    os.set_inheritable(listening, False)
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGINT, signal.SIGQUIT):  # A shell in the background ignores them.
        signal.signal(number, signal.SIG_DFL)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, b"sandbox", 0, 0, 0)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "process 1 cannot be protected from other processes")
    if os.read(going, 1) != b"\n":
        sys.exit("the sandbox's starter did not confirm that its limits are enforced")
    os.close(going)
    server = Server(socket.socket(fileno=listening), limits)
    gc.freeze()  # So that a child copies fewer pages before it executes a program.
    os.write(readying, b"\n")
    os.close(readying)
    server.serve()
