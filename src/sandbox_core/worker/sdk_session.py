"""Wraps the private names of the Agents SDK that the worker uses of a backend's session.

A test lists the other modules that use private names, with the reasons.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Protocol, TypeVar, cast

from agents import get_current_trace
from agents.run_config import SandboxArchiveLimits, SandboxConcurrencyLimits
from agents.sandbox.entries import BaseEntry
from agents.sandbox.errors import OpName
from agents.sandbox.materialization import MaterializedFile
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import User

from sandbox_core.wire.messages import SessionSettings

_OptionsT = TypeVar("_OptionsT")
_ResultT = TypeVar("_ResultT")


def backend_session(session: SandboxSession) -> BaseSandboxSession:
    """Return the backend's own session, without the SDK's wrapper that instruments each call."""
    return session._inner


def prepared_command(
    session: SandboxSession, *words: str, shell: bool | list[str], user: str | None
) -> list[str]:
    """Return the arguments that the backend executes for a command."""
    return session._inner._prepare_exec_command(*words, shell=shell, user=user)


async def reported(
    session: SandboxSession,
    op: OpName,
    run: Callable[[], Coroutine[object, object, _ResultT]],
    *,
    start_data: dict[str, object],
    ok: Callable[[_ResultT], bool],
    outputs: Callable[[_ResultT], tuple[bytes | None, bytes | None]],
) -> _ResultT:
    """Run an operation that sinks and spans report like a call of the session."""
    if not session._instrumentation.sinks and get_current_trace() is None:
        return await run()  # Nobody would see the events, which are not cheap.
    return await session._annotate(op=op, start_data=start_data, run=run, ok=ok, outputs=outputs)


def client_dependencies(client: BaseSandboxClient[_OptionsT]) -> Dependencies | None:
    """Return the dependencies of a client's sessions."""
    return client._resolve_dependencies()


async def validated(session: SandboxSession, path: str | Path, *, for_write: bool = False) -> Path:
    """Return the path in the sandbox, checked against its real file system, including symlinks.

    Raises:
        InvalidManifestPathError: The path is outside the folders that the session may use.
    """
    # In a `str`, the SDK takes a backslash for a separator.
    return await session._validate_path_access(Path(path), for_write=for_write)


class _CreatesFiles(Protocol):
    async def _write_new_file(
        self, path: Path, data: io.IOBase, *, user: str | User | None = None
    ) -> None: ...


def creates_files(session: SandboxSession) -> bool:
    """Return whether the backend's own session can create a file without replacing one.

    The SDK's method for it, which sessions inherit from version 0.24, replaces existing files.
    """
    method = getattr(type(session._inner), "_write_new_file", None)
    return method is not getattr(BaseSandboxSession, "_write_new_file", None)


async def create_file(
    session: SandboxSession, path: Path, data: io.IOBase, *, user: str | None
) -> None:
    """Create a file, with a session for which `creates_files` is true.

    Raises:
        FileExistsError: Something with that name exists.
    """
    await cast("_CreatesFiles", session)._write_new_file(path, data, user=user)


def configure(session: SandboxSession, settings: SessionSettings) -> None:
    """Apply the settings of a workflow's session, made by the SDK's runtime, to the live one."""
    session._set_concurrency_limits(
        SandboxConcurrencyLimits(
            manifest_entries=settings.manifest_entries, local_dir_files=settings.local_dir_files
        )
    )
    limits = settings.archive_limits
    session._set_archive_limits(
        None if limits is None else SandboxArchiveLimits(**limits.model_dump())
    )
    for path in settings.persist_skip_paths:
        session.register_persist_workspace_skip_path(path)


def read_from_any_folder(session: SandboxSession) -> None:
    """Make the SDK accept sources from any folder that `check_local_sources` has allowed.

    By default it accepts only those below the worker's working directory.
    """
    for part in (session, session._inner):
        part._manifest_base_dir = lambda: Path("/")  # type: ignore[method-assign]  # this one's only


def entries_base_dir(session: SandboxSession) -> Path:
    """Return the host's base directory for relative sources of entries."""
    return session._manifest_base_dir()


async def apply_entries(
    session: SandboxSession, entries: list[tuple[Path, BaseEntry]]
) -> list[MaterializedFile]:
    """Materialize entries; return the files that were copied from this host's disk."""
    return await session._apply_entry_batch(entries, base_dir=session._manifest_base_dir())


async def close_dependencies(session: SandboxSession) -> None:
    """Close a session's dependencies, but not the session."""
    await session._aclose_dependencies()


def keep_at_start(session: SandboxSession) -> None:
    """Make the next start treat the workspace as one in use."""
    session._inner._set_start_state_preserved(True)
