"""The command `sandbox-core`, in processes that start quickly.

They are forked from one that has already imported its modules. The packaging tests cover the
difference from starting the installed script.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    out: IO[Any] | None = None,
    err: IO[Any] | None = None,
    folder: Path | None = None,
) -> ForkedProcess:
    """Start the command in a folder, by default the current one; it may be sent signals."""
    return fork_server().start(
        f"{__name__}:run",
        *arguments,
        env=environment(**variables),
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
    variables = {STDIN: os.devnull, **variables}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = start_sandbox(*arguments, variables=variables, out=out, err=err).wait()
        for written in (out, err):
            written.seek(0)
        return subprocess.CompletedProcess([SANDBOX, *arguments], code, out.read(), err.read())


def run(*arguments: str) -> None:
    """Run the command in a process that was forked for it."""
    with Path(os.environ.pop(STDIN, os.devnull)).open("rb") as stdin:
        os.dup2(stdin.fileno(), 0)
    sys.argv[:] = ["sandbox-core", *arguments]
    # As an interpreter does when it starts.
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    main()
