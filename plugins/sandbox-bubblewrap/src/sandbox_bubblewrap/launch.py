"""Starts and ends the processes of a sandbox: bubblewrap, and process 1 inside it.

A sandbox is not a child of the worker that started it: any worker of the same host and user can use
it and end it. These functions block.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Final

from sandbox_bubblewrap import bwrap, limits, seccomp, system
from sandbox_bubblewrap.models import MIB, BubblewrapSandboxClientOptions, refusal
from sandbox_bubblewrap.store import Sandbox

_START_S: Final = 30.0
"""How long a sandbox may take to start."""

_STOP_S: Final = 10.0
"""How long a sandbox may take to stop before its process 1 is killed from outside."""

_INIT: Final = "/run/sandbox"
_MODULES: Final = ("__init__", "archive", "files", "init")
_MAIN: Final = b"from sandbox_bubblewrap.inside.init import main\nmain()\n"

# Makes bwrap a child of the host's process 1, which reaps it.
_DETACH: Final = '"$@" &'

_MASKED: Final = (
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "timer_list",
)
"""Files of /proc that reveal information about the host."""

_RESERVED: Final = (
    *("/dev", "/etc", "/nix", "/proc", "/run", "/sys", "/usr"),
    *("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin"),
)


class SandboxDidNotStart(Exception):
    """A sandbox did not start; the message is the output of bwrap or process 1."""


def check_root(root: str) -> None:
    """Check that a workspace can be at this path in a sandbox.

    Raises:
        ConfigurationError: It would hide the system, or is not an absolute path.
    """
    path = PurePosixPath(root)
    if (
        not path.is_absolute()
        or ".." in path.parts
        or path in (PurePosixPath("/"), PurePosixPath("/tmp"), PurePosixPath("/var"))  # noqa: S108 - of the sandbox
        or any(path.is_relative_to(reserved) for reserved in _RESERVED)
    ):
        raise refusal(
            f"the manifest's root {root!r} cannot be a workspace: it must be an absolute path "
            f"that hides nothing of the sandbox, for example {system.WORKSPACE!r}",
            "start",
            root=root,
        )


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Starts a sandbox."""

    sandbox: Sandbox
    root: str
    """The path of the workspace in the sandbox."""
    options: BubblewrapSandboxClientOptions

    def ensure_running(self) -> Mapping[str, str] | None:
        """Start the sandbox unless it is running; if so, return what enforces its limits.

        Raises:
            FileNotFoundError: It no longer exists.
            SandboxDidNotStart: The start failed.
            BubblewrapUnusable: There is no usable ``bwrap``.
            LimitNotKept: The options are `strict`, and a limit cannot be enforced here.
        """
        with self.sandbox.locked():
            if is_running(self.sandbox):
                return None
            kept = limits.prepare(self.sandbox.id, self.options)
            try:
                self._start(kept)
            except BaseException:
                limits.remove(self.sandbox.id)
                raise
            return kept.kept_by

    def _start(self, kept: limits.Limits) -> None:
        with ExitStack() as stack:
            listener = stack.enter_context(_bound(self.sandbox))
            ready, readying = _pipe(stack)
            info, informing = _pipe(stack)
            going, go = _pipe(stack)
            log = stack.enter_context(self.sandbox.log.open("wb"))
            inherited = [listener.fileno()]
            inherited += [pipe.fileno() for pipe in (readying, informing, going)]
            command = [
                bwrap.find().path,
                *self._namespaces(),
                *("--info-fd", str(informing.fileno())),
                *self._mounts(_Data(stack, inherited)),
                *("--", system.python(), "-I", "-S", "-B", _INIT),
                *(str(listener.fileno()), str(going.fileno()), str(readying.fileno())),
                json.dumps(dict(kept.of_processes)),
            ]
            user = self.sandbox.user_id
            subprocess.run(
                ["/bin/sh", "-c", _DETACH, "sh", *command],
                check=True,
                cwd="/",
                env={},
                extra_groups=None if user is None else [],
                group=user,
                pass_fds=inherited,
                start_new_session=True,
                stderr=log,
                stdin=subprocess.DEVNULL,
                stdout=log,
                umask=0o022,
                user=user,
            )
            for theirs in (readying, informing, going):
                theirs.close()
            deadline = time.monotonic() + _START_S
            started = _read(info, deadline, until=b"}")
            with _killed_if_in_vain(started) as pid:
                problem = ""
                try:
                    if pid is not None:
                        # Process 1 serves no request before it is told that its limits hold.
                        kept.enter(pid)
                        go.write(b"\n")
                except OSError as error:
                    problem = str(error)
                if problem or _read(ready, deadline, until=b"\n") != b"\n":
                    said = self.sandbox.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                    raise SandboxDidNotStart(f"{self.sandbox.id}: {bwrap.explain(said or problem)}")

    def _namespaces(self) -> Iterator[str]:
        yield from ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts")
        yield from ("--unshare-cgroup-try", "--as-pid-1", "--clearenv")
        yield from ("--uid", str(system.USER_ID), "--gid", str(system.USER_ID))
        yield from ("--hostname", "sandbox")
        if self.options.network == "none":
            yield "--unshare-net"

    def _mounts(self, data: _Data) -> Iterator[str]:
        yield from ("--perms", "0755", "--dir", "/etc")
        yield from system.mounts(network=self.options.network == "host")
        for path, content in system.files(self.root).items():
            yield from ("--ro-bind-data", data.holding(content), path)
        package = files("sandbox_bubblewrap.inside")
        for name in _MODULES:
            source = package.joinpath(f"{name}.py").read_bytes()
            path = f"{_INIT}/sandbox_bubblewrap/inside/{name}.py"
            yield from ("--file", data.holding(source), path)
        yield from ("--file", data.holding(_MAIN), f"{_INIT}/__main__.py")
        yield from ("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys")
        for name in _MASKED:
            if os.path.exists(f"/proc/{name}"):  # noqa: PTH110 - PermissionError means that it does
                yield from ("--ro-bind", "/dev/null", f"/proc/{name}")
        size = str(self.options.shm_mb * MIB)
        yield from ("--dev", "/dev", "--perms", "1777", "--size", size, "--tmpfs", "/dev/shm")  # noqa: S108 - of the sandbox
        yield from ("--bind", str(self.sandbox.tmp), "/tmp")  # noqa: S108 - of the sandbox
        yield from ("--dir", "/var", "--symlink", "/tmp", "/var/tmp")  # noqa: S108 - of the sandbox
        yield from system.more_mounts()
        yield from ("--bind", str(self.sandbox.workspace), self.root)
        yield from ("--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/")
        yield from ("--seccomp", data.holding(seccomp.program()))


def is_running(sandbox: Sandbox) -> bool:
    """Return whether process 1 of the sandbox is running."""
    try:
        connect(sandbox).close()
    except BlockingIOError:  # It is busy.
        return True
    except OSError:
        return False
    return True


def stop(sandbox: Sandbox) -> None:
    """End every process of the sandbox, if it is running.

    Raises:
        TimeoutError: It does not end.
    """
    with suppress(FileNotFoundError, ConnectionRefusedError), connected(sandbox) as stream:
        process_1 = _peer(stream)
        try:
            request = json.dumps({"op": "stop"}).encode()
            with suppress(BlockingIOError, BrokenPipeError):
                stream.send(struct.pack(">I", len(request)) + request)
            if not _ends(process_1, stream, _STOP_S):
                # It always answers, unless it is stuck in the kernel.
                if process_1 is not None:
                    signal.pidfd_send_signal(process_1, signal.SIGKILL)
                if not _ends(process_1, stream, _STOP_S):
                    raise TimeoutError(f"the processes of sandbox {sandbox.id} do not end")
        finally:
            if process_1 is not None:
                os.close(process_1)
    limits.remove(sandbox.id)


@contextmanager
def connected(sandbox: Sandbox) -> Iterator[socket.socket]:
    """Yield a non-blocking connection to process 1.

    Raises:
        OSError: The sandbox is not running, or is gone.
    """
    stream = connect(sandbox)
    try:
        yield stream
    finally:
        stream.close()


def connect(sandbox: Sandbox) -> socket.socket:
    """Return a non-blocking connection to process 1.

    Raises:
        OSError: The sandbox is not running, or is gone.
    """
    with _short_path(sandbox) as path:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.setblocking(False)
            stream.connect(path)
        except BaseException:
            stream.close()
            raise
        return stream


@contextmanager
def _short_path(sandbox: Sandbox) -> Iterator[str]:
    # The address of a Unix socket is limited to 107 bytes.
    folder = os.open(sandbox.path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield f"/proc/self/fd/{folder}/socket"
    finally:
        os.close(folder)


@contextmanager
def _bound(sandbox: Sandbox) -> Iterator[socket.socket]:
    """Yield a socket for process 1, which itself calls `listen`, so that peers see its pid."""
    with suppress(FileNotFoundError):
        (sandbox.path / "socket").unlink()
    with _short_path(sandbox) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        bound.bind(path)
        (sandbox.path / "socket").chmod(0o600)
        yield bound


@contextmanager
def _killed_if_in_vain(started: bytes) -> Iterator[int | None]:
    """Yield the pid that bwrap reported; on an error, kill that process."""
    if not started.endswith(b"}"):
        yield None
        return
    pid = int(json.loads(started)["child-pid"])
    try:
        process_1 = os.pidfd_open(pid)
    except OSError:  # It has already ended.
        yield pid
        return
    try:
        yield pid
    except BaseException:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(process_1, signal.SIGKILL)
        select.select([process_1], [], [], _STOP_S)
        raise
    finally:
        os.close(process_1)


class _Data:
    """File contents that bwrap reads from descriptors."""

    def __init__(self, stack: ExitStack, inherited: list[int]) -> None:
        self._stack, self._inherited = stack, inherited

    def holding(self, content: bytes) -> str:
        """Return the number of a new descriptor with `content`."""
        fd = os.memfd_create("sandbox", os.MFD_CLOEXEC)
        self._stack.callback(os.close, fd)
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        self._inherited.append(fd)
        return str(fd)


def _pipe(stack: ExitStack) -> tuple[io.FileIO, io.FileIO]:
    reading, writing = os.pipe()
    return (
        stack.enter_context(io.FileIO(reading, "rb")),
        stack.enter_context(io.FileIO(writing, "wb")),
    )


def _read(pipe: io.FileIO, deadline: float, *, until: bytes) -> bytes:
    content = b""
    while not content.rstrip(b" ").endswith(until):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            break
        piece = pipe.read(4096)
        if not piece:
            break
        content = (content + piece) if until == b"\n" else (content + piece).rstrip()
    return content


def _peer(stream: socket.socket) -> int | None:
    """Return a pidfd of process 1, if it is visible in this process's namespace."""
    size = struct.calcsize("3i")
    pid, _, _ = struct.unpack("3i", stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    try:
        return os.pidfd_open(pid) if pid > 0 else None
    except OSError:  # It has just ended, or Linux is older than 5.3.
        return None


def _ends(process_1: int | None, stream: socket.socket, seconds: float) -> bool:
    # It closes its sockets slightly before its control groups can be removed.
    awaited = stream if process_1 is None else process_1
    return bool(select.select([awaited], [], [], seconds)[0])
