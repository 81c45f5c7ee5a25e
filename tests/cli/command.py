"""The command `sandbox-core`, in processes that start quickly.

They are forked from one that has already imported its modules. The packaging tests cover the
difference from starting the installed script.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

# What its subcommands import.
import sandbox_core.cli.access.copy
import sandbox_core.cli.access.exec
import sandbox_core.cli.access.shell
import sandbox_core.cli.access.show
import sandbox_core.cli.app
import sandbox_core.cli.audit
import sandbox_core.cli.check
import sandbox_core.cli.config
import sandbox_core.cli.demo
import sandbox_core.cli.dev
import sandbox_core.cli.doctor
import sandbox_core.cli.fresh
import sandbox_core.cli.logs
import sandbox_core.cli.providers
import sandbox_core.cli.reap
import sandbox_core.cli.sandboxes
import sandbox_core.cli.storage
import sandbox_core.cli.usage
import sandbox_core.cli.worker  # noqa: F401
from sandbox_core.cli import main
from sandbox_core.testing.fork_server import ForkedProcess, fork_server

STDIN = "TEST_STDIN"
"""The variable that names a file for the command's standard input."""
SANDBOX = Path(sys.executable).parent / "sandbox-core"


def environment(**variables: str) -> dict[str, str]:
    """Return this environment without what would change the command's behaviour."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("DAYTONA_", "OPENAI_", "SANDBOX_CORE_"))
    }
    return {**kept, **variables}


def start_sandbox(
    *arguments: str,
    variables: Mapping[str, str],
    stdin: IO[Any] | None = None,
    out: IO[Any] | None = None,
    err: IO[Any] | None = None,
    folder: Path | None = None,
) -> ForkedProcess:
    """Start the command in a folder, by default the current one; it may be sent signals."""
    return fork_server().start(
        f"{__name__}:run",
        *arguments,
        env=environment(**variables),
        stdin=stdin,
        stdout=out,
        stderr=err,
        folder=folder,
    )


@contextmanager
def running_sandbox(
    *arguments: str, **variables: str
) -> Iterator[tuple[ForkedProcess, IO[str], IO[str]]]:
    """Start the command, and yield it, its output and a file of its errors; kill it at the end."""
    read, write = os.pipe()
    with os.fdopen(read) as output, tempfile.TemporaryFile("w+") as errors:
        with os.fdopen(write, "wb") as theirs:
            process = start_sandbox(*arguments, variables=variables, out=theirs, err=errors)
        try:
            yield process, output, errors
        finally:
            process.kill()


def run_sandbox(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in the current directory."""
    with (
        Path(variables.pop(STDIN, os.devnull)).open("rb") as stdin,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        code = start_sandbox(*arguments, variables=variables, stdin=stdin, out=out, err=err).wait()
        for written in (out, err):
            written.seek(0)
        return subprocess.CompletedProcess([SANDBOX, *arguments], code, out.read(), err.read())


@dataclass
class PipedSandbox:
    """The command, with pipes to it, all of them open."""

    process: ForkedProcess
    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    @classmethod
    async def start(cls, *arguments: str, **variables: str) -> PipedSandbox:
        """Start the command in the current directory."""
        ends = [os.pipe() for _ in range(3)]
        stdin, out, err = (os.fdopen(read, "rb") for read, _ in ends)
        to_stdin, to_out, to_err = (os.fdopen(write, "wb") for _, write in ends)
        with stdin, to_out, to_err:
            process = await asyncio.to_thread(
                start_sandbox, *arguments, variables=variables, stdin=stdin, out=to_out, err=to_err
            )
        return cls(process, to_stdin, out, err)

    async def line(self) -> bytes:
        """Return the next line of its output."""
        return await asyncio.to_thread(self.stdout.readline)

    async def wait(self) -> int:
        return await asyncio.to_thread(self.process.wait)

    async def communicate(self, given: bytes = b"") -> tuple[int, bytes, bytes]:
        """Write to its input, close that, and return its exit code, its output and its errors."""

        def write() -> None:
            with suppress(BrokenPipeError), self.stdin:
                self.stdin.write(given)

        writing = asyncio.to_thread(write)
        reading = (asyncio.to_thread(each.read) for each in (self.stdout, self.stderr))
        _, out, err = await asyncio.gather(writing, *reading)
        return await self.wait(), out or b"", err or b""


def run(*arguments: str) -> None:
    """Run the command in a process that was forked for it."""
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # It leads a session of its own.
    sys.argv[:] = ["sandbox-core", *arguments]
    # As an interpreter does when it starts.
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    main()
