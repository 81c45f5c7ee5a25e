"""A machine for the sandboxes of a loopback server: a directory as the root of namespaces.

It replaces a vendor's virtual machine or container with a mount and a process namespace of
`unshare`. Commands have this machine's programs, and their own files in `/tmp`, `/var/tmp`,
`/home`, `/root`, `/workspace` and `/vercel`; they see no process of another machine. Everything
runs as root of the machine. It is not a security boundary: the network and the other folders are
this machine's. A machine ends with the process that booted it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import pty
import shlex
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

OWN = ("home", "root", "tmp", "vercel", "workspace")

_AS_ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")
_ENTER_AS_ROOT = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")

# It ends when its standard input does; until then bash reaps what is left to the first process.
_BOOT = f"""\
set -e
for path in /*; do
    case ${{path#/}} in proc|{"|".join(OWN)}) continue ;; esac
    if [ -L "$path" ]; then
        [ -L "$1$path" ] || cp -P "$path" "$1$path"
    elif [ -d "$path" ]; then
        mkdir -p "$1$path"
        mount --rbind "$path" "$1$path"
    fi
done
mkdir -p {" ".join(f'"$1/{name}"' for name in ("proc", *OWN))}
mkdir -p "$1/.var-tmp"
mount --bind "$1/.var-tmp" "$1/var/tmp"
mount -t proc proc "$1/proc"
exec chroot "$1" bash -c 'echo ready; read -r _'
"""


@functools.cache
def unavailable() -> str | None:
    """Return why there can be no machine here, or None."""
    command = [
        "unshare",
        *_AS_ROOT,
        "--mount",
        "--pid",
        "--fork",
        "mount",
        "-t",
        "proc",
        "a",
        "/proc",
    ]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "this machine has no unshare"
    return None if tried.returncode == 0 else f"no namespaces here: {tried.stderr.strip()}"


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a command has left."""

    stdout: bytes
    stderr: bytes
    exit_code: int


class Process:
    """A command of a machine, whose output is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process, master: int | None) -> None:
        self.pid = process.pid
        self._process = process
        self._master = master
        self._chunks: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read_all())

    @property
    def exit_code(self) -> int | None:
        """Its exit code as a shell has it, or None as long as it runs."""
        code = self._process.returncode
        return code if code is None or code >= 0 else 128 - code

    async def chunks(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield what comes on `stdout`, `stderr` or `pty` until all is closed; for one reader."""
        while (chunk := await self._chunks.get()) is not None:
            yield chunk

    async def wait(self) -> int:
        """Return the exit code when it has ended."""
        await self._process.wait()
        assert self.exit_code is not None
        return self.exit_code

    async def write(self, data: bytes) -> None:
        """Write to its standard input, or type into its terminal."""
        if self._master is not None:
            await asyncio.to_thread(os.write, self._master, data)
        elif self._process.stdin is not None:
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    def close_stdin(self) -> None:
        """Have its standard input end."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def resize(self, rows: int, cols: int) -> None:
        """Change the size of its terminal."""
        assert self._master is not None
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def kill(self) -> None:
        """Kill it and its children; those that have left the tree stay, as they do at vendors."""
        for pid in _tree(self.pid):
            _kill(pid)

    async def _read_all(self) -> None:
        if self._master is not None:
            await self._read_terminal(self._master)
        else:
            pipes = (("stdout", self._process.stdout), ("stderr", self._process.stderr))
            await asyncio.gather(*(self._read(name, pipe) for name, pipe in pipes if pipe))
        await self._process.wait()
        self._chunks.put_nowait(None)

    async def _read(self, name: str, pipe: asyncio.StreamReader) -> None:
        while data := await pipe.read(65536):
            self._chunks.put_nowait((name, data))

    async def _read_terminal(self, master: int) -> None:
        # A terminal that nobody has open any more reads as an error.
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(master), "rb", 0)
        )
        try:
            while data := await reader.read(65536):
                self._chunks.put_nowait(("pty", data))
        except OSError:
            pass
        finally:
            transport.close()
            self._master = None
            os.close(master)


class Machine:
    """One machine; it has to be booted before anything runs in it."""

    def __init__(self, directory: Path, env: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.env = dict(env or {})
        self._init: asyncio.subprocess.Process | None = None
        self._pid = 0

    @property
    def running(self) -> bool:
        """Whether commands can be run."""
        return self._init is not None and self._init.returncode is None

    async def boot(self) -> None:
        """Start it, with the files that it had when it was halted."""
        self.directory.mkdir(parents=True, exist_ok=True)
        flags = (*_AS_ROOT, "--mount", "--pid", "--fork", "--kill-child")
        self._init = await asyncio.create_subprocess_exec(
            *("unshare", *flags, "bash", "-c", _BOOT, "boot", str(self.directory)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # It complains of being killed.
        )
        assert self._init.stdout is not None
        assert await self._init.stdout.readline() == b"ready\n"
        (self._pid,) = _children(self._init.pid)

    async def start(
        self,
        *argv: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        tty: tuple[int, int] | None = None,
        stdin: bool = False,
    ) -> Process:
        """Start a command.

        Args:
            argv: Its program, found in PATH, and arguments.
            cwd: Where; by default in the root's home.
            env: Its environment beside the machine's own.
            tty: Rows and columns of its terminal, if it shall have one.
            stdin: Whether its standard input is kept open, to be written to.
        """
        enter = ("nsenter", *_ENTER_AS_ROOT, "-t", str(self._pid), "-m", "-p", "-r", "-w")
        given = {"PATH": os.defpath, "HOME": "/root", "LANG": "C.UTF-8", **self.env, **(env or {})}
        chdir = (f"--chdir={cwd or '/root'}", *(f"{name}={value}" for name, value in given.items()))
        if tty is None:
            process = await asyncio.create_subprocess_exec(
                *(*enter, "env", "-i", *chdir, *argv),
                stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            return Process(process, None)
        master, slave = pty.openpty()
        try:
            process = await asyncio.create_subprocess_exec(
                *(*enter, "setsid", "-c", "env", "-i", *chdir, *argv),
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
            )
        finally:
            os.close(slave)
        started = Process(process, master)
        started.resize(*tty)
        return started

    async def run(
        self,
        *argv: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: float | None = None,
    ) -> Output:
        """Run a command to its end.

        Raises:
            TimeoutError: It took longer than `timeout` seconds; it is killed.
        """
        process = await self.start(*argv, cwd=cwd, env=env, stdin=stdin is not None)
        written = asyncio.create_task(_feed(process, stdin or b""))
        collected = {"stdout": bytearray(), "stderr": bytearray()}

        async def collect() -> None:
            async for name, data in process.chunks():
                collected[name] += data

        try:
            await asyncio.wait_for(collect(), timeout)
        except asyncio.TimeoutError:
            process.kill()
            raise TimeoutError(f"{shlex.join(argv)} took longer than {timeout} seconds") from None
        finally:
            written.cancel()
        return Output(
            stdout=bytes(collected["stdout"]),
            stderr=bytes(collected["stderr"]),
            exit_code=await process.wait(),
        )

    async def read(self, path: str) -> bytes:
        """Return what a file holds.

        Raises:
            FileNotFoundError: There is none.
            IsADirectoryError: It is a directory, or cannot be read for another reason.
        """
        output = await self.run("cat", "--", path)
        if output.exit_code == 0:
            return output.stdout
        if (await self.run("test", "-e", path)).exit_code:
            raise FileNotFoundError(f"{path}: no such file or directory")
        raise IsADirectoryError(output.stderr.decode())

    async def write(self, path: str, content: bytes) -> None:
        """Write a file, with the folders above it.

        Raises:
            OSError: It cannot be written.
        """
        script = 'mkdir -p -- "$(dirname -- "$1")" && cat > "$1"'
        output = await self.run("sh", "-c", script, "write", path, stdin=content)
        if output.exit_code:
            raise OSError(output.stderr.decode())

    def processes(self) -> set[int]:
        """Return the live processes, by this host's numbers, but for the first and the helper's."""
        if not self.running:
            return set()
        namespace = Path(f"/proc/{self._pid}/ns/pid").readlink()
        return {
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and int(entry.name) != self._pid and _is_in(entry, namespace)
        }

    async def halt(self) -> None:
        """Kill everything that runs in it; its files stay."""
        if self._init is not None and self._init.returncode is None:
            _kill(self._pid)  # What waits for it ends when its namespace is gone.
            await self._init.wait()

    async def remove(self) -> None:
        """Halt it, and remove its files."""
        await self.halt()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)


async def _feed(process: Process, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # It has ended, or does not read.
        await process.write(data)
    process.close_stdin()


def _children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []


def _tree(pid: int) -> list[int]:
    return [pid, *(found for child in _children(pid) for found in _tree(child))]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _is_in(entry: Path, namespace: Path) -> bool:
    try:
        before, _, after = (entry / "stat").read_bytes().rpartition(b")")
        if after.split()[0] in (b"Z", b"X") or before.endswith(b"(sbx"):
            return False
        return (entry / "ns/pid").readlink() == namespace
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return False


async def copy_disk(source: Path, target: Path) -> None:
    """Copy the files of a machine, whatever they are; what is mounted in it is empty from here."""
    copying = await asyncio.create_subprocess_exec("cp", "-a", "-T", str(source), str(target))
    assert await copying.wait() == 0
