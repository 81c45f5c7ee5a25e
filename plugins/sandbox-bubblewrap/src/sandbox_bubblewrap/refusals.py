"""The errors of the SDK for what a sandbox, or process 1 in it, refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.sandbox.errors import (
    ExecNonZeroError,
    ExecTransportError,
    InvalidManifestPathError,
    WorkspaceArchiveWriteError,
)
from agents.sandbox.types import ExecResult, User
from agents.sandbox.workspace_paths import coerce_posix_path, posix_path_as_path

from sandbox_bubblewrap import system
from sandbox_bubblewrap.connection import NothingRan, NotRunning
from sandbox_bubblewrap.models import (
    refusal,
)


def check_user(user: str | User | None) -> None:
    """Check that `user` is none, or the only one of a sandbox.

    Raises:
        ConfigurationError: It is another one.
    """
    name = user.name if isinstance(user, User) else user
    if name and name != system.USER_NAME:
        raise refusal(
            f"a bubblewrap sandbox has one user, {system.USER_NAME!r}: pass no user instead of "
            f"{name!r}",
            "exec",
            user=name,
        )


def not_executed(
    command: list[str] | tuple[str, ...], error: NothingRan | NotRunning
) -> ExecTransportError:
    """Return the error for a command that did not run."""
    if isinstance(error, NothingRan):
        return ExecTransportError(
            command=command,
            context={"reason": "not_started", "at": error.at, "errno": error.cause.errno},
            cause=error.cause,
        )
    return ExecTransportError(command=command, context={"reason": "not_running"}, cause=error)


def failed(command: tuple[str, ...], cause: OSError) -> ExecNonZeroError:
    """Return the error for a file operation that failed, as if it were `command`."""
    result = ExecResult(stdout=b"", stderr=str(cause).encode(), exit_code=1)
    return ExecNonZeroError(result, command=command, cause=cause)


def os_error(refused: Mapping[str, Any]) -> OSError:
    """Return the operating system's error that process 1 answered."""
    return OSError(refused.get("errno") or 0, str(refused.get("text", refused["error"])))


def raise_refusal(path: Path | str, refused: Mapping[str, Any]) -> None:
    """Raise the error for a path that the SDK's operations must not follow."""
    original = coerce_posix_path(path)
    if refused["error"] == "escape":
        raise InvalidManifestPathError(
            rel=original.as_posix(),
            reason="absolute" if original.is_absolute() else "escape_root",
            context={"resolved_path": refused["resolved"]},
        )
    if refused["error"] == "read_only":
        raise WorkspaceArchiveWriteError(
            path=posix_path_as_path(original),
            context={
                "reason": "read_only_extra_path_grant",
                "grant_path": refused["grant"],
                "resolved_path": refused["resolved"],
            },
        )
