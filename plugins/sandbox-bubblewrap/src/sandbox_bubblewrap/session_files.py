"""The file operations of a session.

Each runs inside the sandbox, as its user: the worker never follows a path in a workspace, so that
links and special files cannot mislead it.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from agents.sandbox.errors import (
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.files import EntryKind, FileEntry
from agents.sandbox.session.workspace_payloads import coerce_write_payload
from agents.sandbox.types import Permissions, User
from agents.sandbox.workspace_paths import posix_path_as_path

from sandbox_bubblewrap import file_operations
from sandbox_bubblewrap.connection import NothingRan, NotRunning
from sandbox_bubblewrap.refusals import check_user, failed, not_executed, os_error, raise_refusal
from sandbox_bubblewrap.session_base import SessionBase

# By the formats of `stat.S_IFMT`; all others are "other".
_KINDS: Final = {
    0o040000: EntryKind.DIRECTORY,
    0o100000: EntryKind.FILE,
    0o120000: EntryKind.SYMLINK,
}


class SessionFiles(SessionBase):
    """The session's operations on files, and on the workspace as a whole."""

    def normalize_path(self, path: Path | str, *, for_write: bool = False) -> Path:
        # The host's file at this path is a different one.
        policy = self._workspace_path_policy()
        return posix_path_as_path(policy.normalize_sandbox_path(path, for_write=for_write))

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        normalized = self.normalize_path(path, for_write=for_write)
        refused = await self._perform("check", normalized, io.BytesIO(), for_write=for_write)
        if refused is not None:
            raise_refusal(path, refused)
            raise os_error(refused)
        return normalized

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        check_user(user)
        arguments = self._arguments(self.normalize_path(path))
        try:
            file, refused = await self._in_running(
                lambda: file_operations.open_file(self._sandbox, arguments)
            )
        except (NothingRan, NotRunning) as error:
            raise WorkspaceArchiveReadError(path=path, cause=error) from error
        if file is not None:
            return file
        assert refused is not None
        raise_refusal(path, refused)
        cause = os_error(refused)
        if isinstance(cause, FileNotFoundError):
            raise WorkspaceReadNotFoundError(path=path, cause=cause) from cause
        raise WorkspaceArchiveReadError(path=path, cause=cause) from cause

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        check_user(user)
        payload = coerce_write_payload(path=path, data=data)
        await self._change("write", path, source=payload.stream)

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        check_user(user)
        normalized = self.normalize_path(path)
        listed = io.BytesIO()
        command = ("ls", "-la", "--", str(normalized))
        try:
            refused = await self._perform("ls", normalized, listed)
        except (NothingRan, NotRunning) as error:
            raise not_executed(command, error) from error
        if refused is not None:
            raise_refusal(path, refused)
            raise failed(command, os_error(refused))
        return [
            FileEntry(
                path=entry["path"],
                permissions=Permissions.from_mode(entry["mode"]),
                owner=entry["owner"],
                group=entry["group"],
                size=entry["size"],
                kind=_KINDS.get(entry["mode"] & 0o170000, EntryKind.OTHER),
            )
            for entry in json.loads(listed.getvalue())
        ]

    async def mkdir(
        self, path: Path | str, *, parents: bool = False, user: str | User | None = None
    ) -> None:
        check_user(user)
        await self._change("mkdir", path, parents=parents)

    async def rm(
        self, path: Path | str, *, recursive: bool = False, user: str | User | None = None
    ) -> None:
        check_user(user)
        await self._change("rm", path, recursive=recursive)

    async def persist_workspace(self) -> io.IOBase:
        root = self.state.manifest.root
        skip = sorted(path.as_posix() for path in self._persist_workspace_skip_relpaths())
        saved = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            refused = await self._file_operation(
                "persist", {"root": root, "skip": skip}, target=saved
            )
            if refused is not None:
                path = Path(root, str(refused.get("path", "")))
                context = {"reason": str(refused.get("reason", refused.get("text", "")))}
                raise WorkspaceArchiveReadError(path=path, context=context, cause=os_error(refused))
        except (NothingRan, NotRunning, OSError) as error:
            saved.close()
            raise WorkspaceArchiveReadError(path=Path(root), cause=error) from error
        except BaseException:
            saved.close()
            raise
        saved.seek(0)
        return saved

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        root = self.state.manifest.root
        try:
            refused = await self._file_operation(
                "hydrate", {"root": root}, source=data, target=io.BytesIO()
            )
        except (NothingRan, NotRunning, OSError) as error:
            raise WorkspaceArchiveWriteError(path=Path(root), cause=error) from error
        if refused is not None:
            context = {"reason": str(refused.get("reason", refused.get("text", "")))}
            if "path" in refused:
                context["member"] = str(refused["path"])
            raise WorkspaceArchiveWriteError(
                path=Path(root), context=context, cause=os_error(refused)
            )

    async def _change(
        self, name: str, path: Path | str, source: io.IOBase | None = None, **arguments: bool
    ) -> None:
        normalized = self.normalize_path(path, for_write=True)
        try:
            refused = await self._perform(
                name, normalized, io.BytesIO(), source=source, **arguments
            )
        except (NothingRan, NotRunning) as error:
            raise WorkspaceArchiveWriteError(path=normalized, cause=error) from error
        if refused is None:
            return
        raise_refusal(path, refused)
        cause = os_error(refused)
        if name == "rm" and isinstance(cause, FileNotFoundError):
            raise failed(("rm", "--", str(normalized)), cause) from cause
        raise WorkspaceArchiveWriteError(path=normalized, cause=cause) from cause

    async def _perform(
        self,
        name: str,
        path: Path,
        target: io.IOBase,
        *,
        source: io.IOBase | None = None,
        **arguments: bool,
    ) -> dict[str, Any] | None:
        request = {**self._arguments(path), **arguments}
        return await self._file_operation(name, request, source=source, target=target)

    def _arguments(self, path: Path) -> dict[str, object]:
        grants = [
            [root.as_posix(), read_only]
            for root, read_only in self._workspace_path_policy().extra_path_grant_rules()
        ]
        return {"path": path.as_posix(), "roots": [[self.state.manifest.root, False], *grants]}

    async def _file_operation(
        self,
        name: str,
        arguments: Mapping[str, object],
        *,
        source: io.IOBase | None = None,
        target: io.IOBase,
    ) -> dict[str, Any] | None:
        return await self._in_running(
            lambda: file_operations.perform(
                self._sandbox, name, arguments, source=source, target=target
            )
        )
