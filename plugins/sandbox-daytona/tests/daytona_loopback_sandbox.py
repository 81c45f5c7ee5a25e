"""Sandboxes of the Daytona loopback: directories, the paths into them and their processes.

This is the part of the stand-in in ``daytona_loopback`` that knows nothing of HTTP. A sandbox is
a directory that plays the part of ``/``. Commands run on this machine as the current user, and
nothing here is a security boundary.

How a sandbox's absolute paths reach its directory
    ``/home/daytona``, ``/workspace`` and ``/tmp`` (``MAPPED_PREFIXES``) are rewritten textually,
    in commands, terminal input, environment values and working directories, to the same path
    below the sandbox's directory. In everything a process prints, the sandbox's directory is cut
    off again, so that ``pwd`` or a resolved symlink reads as it would in a real sandbox. This
    needs no privilege and no namespace.

Limits of that
    * Only text that passes through a command is rewritten. A script uploaded as a file, or a
      program that computes ``"/" + "tmp"``, sees this machine's paths; use relative paths in
      files. Files are transferred byte for byte, so one that a command wrote with an absolute
      path in it (an absolute symlink, a here-document) holds the rewritten path.
    * A prefix counts only at the start of a path: ``--out=/tmp/x`` is rewritten, ``-I/tmp/x`` and
      ``$HOME/tmp/x`` are not. Terminal input is rewritten one message at a time.
    * Output that ends in what may be the beginning of the sandbox's directory, such as ``/``, is
      held back until more follows or the process ends.
    * Any other absolute path in a command is this machine's. The file endpoints are stricter:
      every absolute path they are given is one below the sandbox's directory.

Processes are found through ``/proc`` and awaited through pidfds, so this works on Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import posixpath
import pty
import re
import select
import shutil
import signal
import struct
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

HOME = "/home/daytona"
MAPPED_PREFIXES = (HOME, "/workspace", "/tmp")

STDOUT = b"\x01\x01\x01"
STDERR = b"\x02\x02\x02"

_SHELL = shutil.which("bash") or "/bin/sh"
# Opening the terminal makes it the controlling one of the session leader that opens it.
_TAKE_TERMINAL = 'exec "$@" <>"$0" >&0 2>&1'
# Without line editing the terminal echoes input as it is, never wrapped or redrawn.
_TERMINAL_SHELL = (
    (_SHELL, "--noprofile", "--norc", "--noediting", "-i")
    if _SHELL.endswith("bash")
    else (_SHELL, "-i")
)
_KILL_DEADLINE_S = 10.0


def now() -> str:
    """Return the time as the API shows it."""
    return datetime.now().astimezone().isoformat()


class SandboxNotStarted(Exception):
    """A process was asked of a sandbox that is stopped or gone."""


class PathMap:
    """Translates between a sandbox's paths and those of its directory on this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._real = os.fsencode(directory)
        prefixes = "|".join(map(re.escape, MAPPED_PREFIXES))
        self._virtual = re.compile(
            rf"{re.escape(str(directory))}|(?<![\w.~*?$)}}\]/-])(?:{prefixes})(?![\w.-])"
        )

    def to_real(self, text: str) -> str:
        """Rewrite the sandbox paths in a text; those already rewritten stay as they are."""
        real = str(self.directory)
        return self._virtual.sub(lambda match: real + match[0].removeprefix(real), text)

    def to_virtual(self, data: bytes) -> bytes:
        """Cut the sandbox's directory off every path in some output."""
        first, *rest = data.split(self._real)
        return first + b"".join((b"" if part[:1] == b"/" else b"/") + part for part in rest)

    def locate(self, path: str) -> Path:
        """Return the file a sandbox path stands for; a relative path starts at the home."""
        if path.startswith(f"{self.directory}/"):
            path = path.removeprefix(str(self.directory))
        return self.directory / posixpath.normpath(posixpath.join(HOME, path)).lstrip("/")

    def split_incomplete(self, data: bytes) -> tuple[bytes, bytes]:
        """Split off a tail that may be, or end in, the beginning of the sandbox's directory."""
        for size in range(min(len(self._real), len(data)), 0, -1):
            if self._real.startswith(data[-size:]):
                whole = data[:-size].removesuffix(self._real)  # What follows it decides its form.
                return whole, data[len(whole) :]
        return data, b""


def _process_tree(marker: bytes, leader: int | None, *, owned: bool = False) -> set[int]:
    """Return the live processes that carry the marker, all or those of one leader.

    A leader's processes are its descendants and the members of its process group. Its id may be
    another process's by now unless it is ``owned``, that is not reaped yet; only then are
    processes counted that have dropped the marker from their environment.
    """
    marked: set[int] = set()
    parents: dict[int, int] = {}
    tree = set() if leader is None else {leader}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # It has ended, or belongs to somebody else.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            status = (entry / "stat").read_bytes().rpartition(b")")[2]
            state, parent, group = status.split()[:3]
            if state in b"ZX":
                continue
            pid = int(entry.name)
            parents[pid] = int(parent)
            if int(group) == leader:
                tree.add(pid)
            if marker in (entry / "environ").read_bytes().split(b"\0"):
                marked.add(pid)
    if leader is None:
        return marked
    while children := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= children
    return tree & (set(parents) if owned else marked)


def _kill_all(find: Callable[[], set[int]]) -> None:
    """Kill what is found and wait for it to be gone, until nothing is (a fork can race a look)."""
    while pids := find():
        descriptors: list[int] = []
        try:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    descriptors.append(os.pidfd_open(pid))
                    signal.pidfd_send_signal(descriptors[-1], signal.SIGKILL)
            for descriptor in descriptors:
                if not select.select([descriptor], [], [], _KILL_DEADLINE_S)[0]:
                    raise TimeoutError(f"processes {sorted(pids)} survived SIGKILL")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


class Job:
    """One command of a sandbox: its process, its output so far and its exit code."""

    def __init__(self, sandbox: Sandbox, job_id: str, command: str) -> None:
        self.id = job_id
        self.command = command
        self.chunks: list[tuple[bytes, bytes]] = []
        self.exit_code: int | None = None
        self.started = asyncio.Event()
        self.finished = asyncio.Event()
        self._sandbox = sandbox
        self._changed = asyncio.Condition()
        self._pumps: list[asyncio.Task[None]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self, cwd: Path, env: Mapping[str, str], *, interactive: bool) -> None:
        """Start the command; only an interactive one keeps its standard input open."""
        self._process = await asyncio.create_subprocess_exec(
            _SHELL,
            "-c",
            self._sandbox.paths.to_real(self.command),
            cwd=cwd,
            env=env,
            stdin=asyncio.subprocess.PIPE if interactive else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pump(STDOUT, self._process.stdout)
        self._pump(STDERR, self._process.stderr)
        self._watcher = asyncio.create_task(self._watch(self._process))

    def output(self, *streams: bytes) -> str:
        """Return the output so far of the given streams, of all of them by default."""
        data = b"".join(data for stream, data in self.chunks if not streams or stream in streams)
        return data.decode(errors="replace")

    def logs(self) -> dict[str, str]:
        """Return the output so far as the API shows it."""
        stdout, stderr = self.output(STDOUT), self.output(STDERR)
        return {"output": self.output(), "stdout": stdout, "stderr": stderr}

    def describe(self) -> dict[str, object]:
        """Return the command as the API shows it."""
        ended = {} if self.exit_code is None else {"exitCode": self.exit_code}
        return {"id": self.id, "command": self.command, **ended}

    async def follow(self, start: int = 0) -> AsyncIterator[tuple[bytes, bytes]]:
        """Yield the chunks of output from an index on, until the command has ended."""
        while True:
            async with self._changed:
                while start == len(self.chunks) and self.exit_code is None:
                    await self._changed.wait()
            chunks = self.chunks[start:]
            if not chunks:
                return
            for chunk in chunks:
                yield chunk
            start += len(chunks)

    def processes(self) -> set[int]:
        """Return the command's live processes."""
        if self._process is None:
            return set()
        return _process_tree(
            self._sandbox.marker, self._process.pid, owned=self._process.returncode is None
        )

    async def kill(self) -> None:
        """Kill the command's process tree and wait until the command has ended."""
        await self.started.wait()
        await asyncio.to_thread(_kill_all, self.processes)
        await self.abandon()

    async def abandon(self) -> None:
        """Stop reading: what left the killed process tree may hold the output open for ever."""
        for task in self._pumps:
            task.cancel()
        await self.finished.wait()

    def _pump(self, stream: bytes, reader: asyncio.StreamReader) -> None:
        self._pumps.append(asyncio.create_task(self._read(stream, reader)))

    async def _read(self, stream: bytes, reader: asyncio.StreamReader) -> None:
        paths, held, ended = self._sandbox.paths, b"", False
        while not ended:
            try:
                data = await reader.read(65536)
            except OSError as error:
                if error.errno != errno.EIO:  # That is how a terminal ends.
                    raise
                data = b""
            ended = not data
            whole, held = (held, b"") if ended else paths.split_incomplete(held + data)
            if whole:
                async with self._changed:
                    self.chunks.append((stream, paths.to_virtual(whole)))
                    self._changed.notify_all()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        # As with Daytona, a background process that keeps the output open keeps the command going.
        await asyncio.wait(self._pumps)
        await self._end(await process.wait())

    async def _end(self, status: int) -> None:
        async with self._changed:
            self.exit_code = status if status >= 0 else 128 - status
            self._changed.notify_all()
        self._sandbox.jobs.discard(self)
        self.finished.set()


class Terminal(Job):
    """An interactive shell of a sandbox on a pseudo-terminal."""

    def __init__(self, sandbox: Sandbox, job_id: str, cwd: str, cols: int, rows: int) -> None:
        super().__init__(sandbox, job_id, "")
        self.cwd = cwd
        self.cols = cols
        self.rows = rows
        self.created_at = now()
        self._master = -1

    async def start(self, cwd: Path, env: Mapping[str, str], *, interactive: bool) -> None:
        """Start the shell on a new terminal."""
        self._master, slave = pty.openpty()
        self.resize(self.cols, self.rows)
        try:
            self._process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _TAKE_TERMINAL,
                os.ttyname(slave),
                *_TERMINAL_SHELL,
                cwd=cwd,
                env={"TERM": "xterm-256color", "PS1": "$ ", **env},
                start_new_session=True,
            )
        except OSError:
            os.close(self._master)
            os.close(slave)
            raise
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(self._master), "rb", 0)
        )
        self._pump(b"", reader)
        self._watcher = asyncio.create_task(self._watch_terminal(self._process, transport, slave))

    def resize(self, cols: int, rows: int) -> None:
        """Change the size of the terminal."""
        self.cols, self.rows = cols, rows
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def describe(self) -> dict[str, object]:
        """Return the terminal as the API shows it."""
        return {
            "id": self.id,
            "cwd": self.cwd,
            "envs": {},
            "cols": self.cols,
            "rows": self.rows,
            "active": not self.finished.is_set(),
            "lazyStart": False,
            "createdAt": self.created_at,
        }

    async def write(self, data: str) -> None:
        """Type into the terminal."""
        remaining = self._sandbox.paths.to_real(data).encode()
        while remaining and not self.finished.is_set():
            remaining = remaining[self._write_some(remaining) :]
            if remaining:
                await self._writable()

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0

    async def _writable(self) -> None:
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._master, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._master)

    async def _watch_terminal(
        self, process: asyncio.subprocess.Process, transport: asyncio.BaseTransport, slave: int
    ) -> None:
        # Held until now, because a terminal that nobody has open yet reads as one that ended.
        status = await process.wait()
        os.close(slave)
        await asyncio.wait(self._pumps)
        transport.close()
        await self._end(status)
        asyncio.get_running_loop().remove_writer(self._master)
        os.close(self._master)


@dataclass(eq=False)
class Sandbox:
    """A sandbox: what was asked for at its creation, its state and all that runs in it."""

    id: str
    name: str
    directory: Path
    labels: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    state: str = "started"
    desired_state: str | None = None
    listed_labels: dict[str, str] | None = None
    sessions: dict[str, dict[str, Job]] = field(default_factory=dict)
    terminals: dict[str, Terminal] = field(default_factory=dict)
    jobs: set[Job] = field(default_factory=set)
    created_at: str = field(default_factory=now)

    def __post_init__(self) -> None:
        self.paths = PathMap(self.directory)
        self.marker = f"DAYTONA_SANDBOX_ID={self.id}".encode()
        for path in (HOME, "/tmp"):
            self.paths.locate(path).mkdir(parents=True)

    def describe(self) -> dict[str, object]:
        """Return the sandbox as the API shows it, but for where its toolbox is."""
        return {
            "organizationId": "loopback",
            "user": "daytona",
            "public": False,
            "networkBlockAll": False,
            "kvm": False,
            "target": "local",
            "cpu": 1,
            "gpu": 0,
            "memory": 1,
            "disk": 3,
            **self.settings,
            "id": self.id,
            "name": self.name,
            "env": self.env,
            "labels": self.labels,
            "state": self.state,
            "desiredState": self.desired_state or self.state,
            "createdAt": self.created_at,
        }

    def processes(self) -> set[int]:
        """Return the ids of the live processes of the sandbox."""
        pids = _process_tree(self.marker, None)
        return pids.union(*(job.processes() for job in tuple(self.jobs)))

    async def launch(
        self,
        job: Job,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        interactive: bool = False,
    ) -> None:
        """Start a job of this sandbox."""
        try:
            if self.state != "started":
                raise SandboxNotStarted
            self.jobs.add(job)
            await job.start(
                self.paths.locate(cwd or HOME),
                self._environment(env or {}),
                interactive=interactive,
            )
        except (OSError, SandboxNotStarted):
            self.jobs.discard(job)
            job.finished.set()
            raise
        finally:
            job.started.set()
        if self.state != "started":  # It was stopped while the process started.
            await job.kill()
            raise SandboxNotStarted

    async def stop(self, state: str) -> None:
        """Kill everything that runs in the sandbox."""
        self.state = state
        await asyncio.to_thread(_kill_all, self.processes)
        for job in tuple(self.jobs):
            await job.abandon()
        self.sessions.clear()
        self.terminals.clear()

    async def destroy(self) -> None:
        """Kill everything that runs in the sandbox and remove its directory."""
        await self.stop("destroyed")
        await asyncio.to_thread(self._remove_directory)

    def _remove_directory(self) -> None:
        for parent, names, _ in os.walk(self.directory):
            for name in names:
                path = Path(parent, name)
                if not path.is_symlink():
                    path.chmod(0o700)  # A read-only directory could not be emptied.
        shutil.rmtree(self.directory)

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process; nothing but PATH comes from this machine's."""
        asked = {**self.env, **extra}
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.paths.locate(HOME)),
            "TMPDIR": str(self.paths.locate("/tmp")),
            **{name: self.paths.to_real(value) for name, value in asked.items()},
            "DAYTONA_SANDBOX_ID": self.id,
        }
