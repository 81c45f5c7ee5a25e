"""What the worker asks of a backend's session that the Agents SDK names with an underscore.

No other module of the worker uses such names, except where one is replaced (`agents_patches`).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Protocol, cast

from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import User


def inner_session(session: SandboxSession) -> BaseSandboxSession:
    """Return the backend's session in the SDK's wrapper."""
    return session._inner


async def validated(session: SandboxSession, path: str | Path, *, for_write: bool = False) -> Path:
    """Return the path in the sandbox, checked against its real file system, symlinks included.

    Raises:
        InvalidManifestPathError: It is in no folder that the session may use.
    """
    # The SDK takes a backslash of a `str` for a separator of folders.
    return await session._validate_path_access(Path(path), for_write=for_write)


class _CreatesFiles(Protocol):
    async def _write_new_file(
        self, path: Path, data: io.IOBase, *, user: str | User | None = None
    ) -> None: ...


def creates_files(session: SandboxSession) -> bool:
    """Tell whether the backend's session itself writes a file only if it is not there.

    The SDK's own method for it, which sessions inherit from 0.24 on, writes over what is there.
    """
    method = getattr(type(session._inner), "_write_new_file", None)
    return method is not getattr(BaseSandboxSession, "_write_new_file", None)


async def create_file(
    session: SandboxSession, path: Path, data: io.IOBase, *, user: str | None
) -> None:
    """Write a file that is not there, with a session of which `creates_files` is true.

    Raises:
        FileExistsError: Something of that name is there.
    """
    await cast("_CreatesFiles", session)._write_new_file(path, data, user=user)
