"""`sandbox-core cp`: copies files and directories into or out of the sandbox of a running agent."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import typer
from agents.sandbox.errors import SandboxError

from sandbox_core.cli.access.directories import receive, send
from sandbox_core.cli.access.holder import Where
from sandbox_core.cli.access.standard_input import read_standard_input
from sandbox_core.cli.access.visit import Visit
from sandbox_core.errors import InvalidRequest, OperationFailed
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops

STANDARD = "-"
"""Standard input or output, instead of a local file."""


@dataclass(frozen=True, kw_only=True)
class InSandbox:
    """A file or directory in a sandbox, written as ``ID:PATH``."""

    sandbox_id: str
    path: str
    """Relative to the workspace, or below it; ``./`` is the workspace itself."""


def parse_place(text: str) -> InSandbox | str:
    """Return a file in a sandbox, or the path of a local one.

    A text with a colon is one in a sandbox, unless it begins with ``./`` or ``../``. Nothing after
    the colon means the workspace.

    Raises:
        typer.BadParameter: The sandbox's id is missing.
    """
    sandbox_id, colon, path = text.partition(":")
    if not colon or text.startswith(("./", "../")):
        return text
    if not sandbox_id:
        raise typer.BadParameter(
            f"{text!r}: write ID:PATH for a file in a sandbox, ./{text} for a local one."
        )
    return InSandbox(sandbox_id=sandbox_id, path=path or "./")


async def copy_file(source: str, target: str, where: Where, *, user: str | None) -> int:
    """Copy one file or directory, one of `source` and `target` in a sandbox, and return 0.

    Raises:
        InvalidRequest: A local file cannot be read or written; or the sandbox does not exist.
        SandboxLost: No worker holds the sandbox.
        SandboxCoreError: The copy failed on the worker.
        ServerUnavailable: The server does not answer, or does not run standalone activities.
        typer.BadParameter: Both are in sandboxes, or none is.
    """
    here, there = parse_place(source), parse_place(target)
    try:
        if isinstance(here, InSandbox) and isinstance(there, str):
            await _fetch(here, there, where, user)
        elif isinstance(there, InSandbox) and isinstance(here, str) and _is_directory(here):
            visit = await Visit.begin(there.sandbox_id, where)
            named = Path("." if here.endswith(("/.", "/..")) else here)
            await send(visit, Path(here), there.path, name=named, user=user)
        elif isinstance(there, InSandbox) and isinstance(here, str):
            content = await (
                read_standard_input() if here == STANDARD else asyncio.to_thread(_content, here)
            )
            name = "" if here == STANDARD else Path(here).name
            await _write(content, there, where, user, name)
        else:
            raise typer.BadParameter("exactly one of the two is in a sandbox, written as ID:PATH.")
    except SandboxError as error:
        raise OperationFailed(error.message) from error
    except OSError as error:
        raise InvalidRequest(f"{error.filename}: {error.strerror}") from error
    return 0


async def _fetch(file: InSandbox, target: str, where: Where, user: str | None) -> None:
    visit = await Visit.begin(file.sandbox_id, where)
    request = m.ReadRequest(session=visit.session, path=file.path, user=user)
    try:
        content = await visit.perform(ops.READ, request)
    except (SandboxError, InvalidRequest):
        if target == STANDARD or not await receive(visit, file.path, Path(target), user=user):
            raise
    else:
        _save(content, target, Path(file.path).name)


async def _write(
    content: bytes, file: InSandbox, where: Where, user: str | None, name: str
) -> None:
    path = f"{file.path}{name}" if file.path.endswith("/") else file.path
    if path.endswith("/"):
        raise InvalidRequest(f"{path!r} is a directory: name the file to write there.")
    visit = await Visit.begin(file.sandbox_id, where)
    request = m.WriteRequest(session=visit.session, path=path, user=user)
    await visit.perform(ops.WRITE, request, content)


def _is_directory(path: str) -> bool:
    return path != STANDARD and Path(path).is_dir()


def _content(path: str) -> bytes:
    return Path(path).read_bytes()


def _save(content: bytes, target: str, name: str) -> None:
    """Write a local file; nothing is left of one that is not complete."""
    if target == STANDARD:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    path = Path(target) / name if Path(target).is_dir() else Path(target)
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):  # A device, a pipe.
        path.write_bytes(content)
        return
    whole = path.resolve()  # A link stays one.
    descriptor, name = tempfile.mkstemp(prefix=f".{whole.name}.", dir=whole.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        partial.chmod(_mode_of(whole))
        partial.replace(whole)
    except BaseException:
        partial.unlink()
        raise


def _mode_of(path: Path) -> int:
    """Return the mode of a file that exists, or that a new one gets."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
