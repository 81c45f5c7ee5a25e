"""The file operations of a workflow's session, each one activity."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from agents.editor import ApplyPatchOperation
from agents.run_config import SandboxArchiveLimits
from agents.sandbox.apply_patch import PatchFormat, _coerce_operations
from agents.sandbox.capabilities import SkillMetadata
from agents.sandbox.entries import LocalDir
from agents.sandbox.files import FileEntry
from agents.sandbox.types import User
from agents.sandbox.workspace_paths import WorkspacePathPolicy, posix_path_as_path

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import dump_entry
from sandbox_core.workflow import convert
from sandbox_core.workflow.session_base import SessionBase


class _PurePathPolicy(WorkspacePathPolicy):
    """The SDK's path rules, without access to the workflow host's file system."""

    @staticmethod
    def _path_exists(path: Path) -> bool:
        return False


class SessionFiles(SessionBase):
    """The session's operations on files, skills and paths."""

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        """Return the content of a file in an in-memory binary stream.

        Args:
            path: The file; a relative path is relative to the manifest's root.
            user: The sandbox user to read as; None is the backend's default.

        Raises:
            WorkspaceReadNotFoundError: There is no such file.
            InvalidManifestPathError: The path, after resolving symlinks, is outside the
                directories that the session may use.
            PayloadTooLarge: The file exceeds `SandboxPlugin(max_file_bytes=...)`.
        """
        return io.BytesIO(await self._read_file(path, user=convert.user_name(user)))

    async def read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        """Return up to `max_bytes` from the start of a file; only those are transferred.

        Raises:
            InvalidRequest: `max_bytes` is not positive.
            WorkspaceReadNotFoundError: There is no such file.
        """
        if convert.number(max_bytes, "max_bytes") <= 0:
            raise InvalidRequest(f"read_bounded: max_bytes has to be positive, not {max_bytes}.")
        content = await self._read_file(path, max_bytes=max_bytes)
        return content[:max_bytes]  # An older worker returns the whole file.

    async def _read_file(
        self, path: Path, *, user: str | None = None, max_bytes: int | None = None
    ) -> bytes:
        request = m.ReadRequest(
            session=self._ref, path=convert.path_text(path), user=user, max_bytes=max_bytes
        )
        return await self._call(ops.READ, request)

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file, replacing an existing one.

        Args:
            path: The file; a relative path is relative to the manifest's root.
            data: The content, read to the end of the stream; text is encoded as UTF-8.
            user: The sandbox user to write as; None is the backend's default.

        Raises:
            WorkspaceArchiveWriteError: The file could not be written.
            InvalidManifestPathError: The path, after resolving symlinks, is outside the
                directories that the session may write to.
            PayloadTooLarge: The content exceeds `SandboxPlugin(max_file_bytes=...)`.
        """
        await self._write_file(path, data, user=user, new=False)

    async def _write_new_file(
        self, path: Path, data: io.IOBase, *, user: str | User | None = None
    ) -> None:
        await self._write_file(path, data, user=user, new=True)

    async def _write_file(
        self, path: Path, data: io.IOBase, *, user: str | User | None, new: bool
    ) -> None:
        request = m.WriteRequest(
            session=self._ref, path=convert.path_text(path), user=convert.user_name(user), new=new
        )
        await self._call(ops.WRITE, request, convert.content(data))

    async def mv(
        self,
        source: Path | str,
        destination: Path | str,
        *,
        user: str | User | None = None,
    ) -> None:
        """Rename a regular file or a symlink, replacing a file or symlink at `destination`.

        Raises:
            ExecNonZeroError: `source` does not exist or is a directory or special file, or
                `destination` is a directory.
        """
        await self._call(
            ops.MOVE,
            m.MoveRequest(
                session=self._ref,
                source=convert.path_text(source),
                destination=convert.path_text(destination),
                user=convert.user_name(user),
            ),
        )

    async def same_file(
        self,
        left: Path | str,
        right: Path | str,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> bool:
        """Return whether two paths refer to the same file of the sandbox.

        Args:
            left: The first path.
            right: The second path.
            follow_symlinks: If False, a symlink is never the same file as another path.
            user: The sandbox user to look as; None is the backend's default.
        """
        answer = await self._call(
            ops.SAME_FILE,
            m.SameFileRequest(
                session=self._ref,
                left=convert.path_text(left),
                right=convert.path_text(right),
                follow_symlinks=follow_symlinks,
                user=convert.user_name(user),
            ),
        )
        return answer.same

    async def ls(self, path: Path | str, *, user: str | User | None = None) -> list[FileEntry]:
        """List a directory, in the backend's order; sizes are in bytes.

        Raises:
            ExecNonZeroError: There is no such directory.
            InvalidRequest: The directory has more entries than a workflow can process.
        """
        listing = await self._call(
            ops.LS,
            m.LsRequest(
                session=self._ref, path=convert.path_text(path), user=convert.user_name(user)
            ),
        )
        return [convert.file_entry(entry) for entry in listing.entries]

    async def mkdir(
        self, path: Path | str, *, parents: bool = False, user: str | User | None = None
    ) -> None:
        """Create a directory.

        Args:
            path: The directory; a relative path is relative to the manifest's root.
            parents: Whether to create missing parents and accept an existing directory.
            user: The sandbox user to create it as; None is the backend's default.

        Raises:
            ExecNonZeroError: The directory could not be created.
        """
        await self._call(
            ops.MKDIR,
            m.MkdirRequest(
                session=self._ref,
                path=convert.path_text(path),
                user=convert.user_name(user),
                parents=parents,
            ),
        )

    async def rm(
        self, path: Path | str, *, recursive: bool = False, user: str | User | None = None
    ) -> None:
        """Remove a file or a symlink, or with `recursive` a directory and its content.

        Raises:
            ExecNonZeroError: The path does not exist or could not be removed.
        """
        await self._call(
            ops.RM,
            m.RmRequest(
                session=self._ref,
                path=convert.path_text(path),
                user=convert.user_name(user),
                recursive=recursive,
            ),
        )

    async def extract(
        self,
        path: Path | str,
        data: io.IOBase,
        *,
        compression_scheme: Literal["tar", "zip"] | None = None,
        archive_limits: SandboxArchiveLimits | None = None,
    ) -> None:
        """Write an archive to `path` and extract it into the directory that contains it.

        Args:
            path: Where the archive is written.
            data: The archive.
            compression_scheme: None infers it from the file name.
            archive_limits: Limits in bytes and members; None is the run config's.

        Raises:
            WorkspaceArchiveWriteError: The archive is invalid, exceeds a limit, or has a member
                that would be written outside the workspace.
        """
        await self._call(
            ops.EXTRACT,
            m.ExtractRequest(
                session=self._ref,
                path=convert.path_text(path),
                compression_scheme=compression_scheme,
                archive_limits=convert.archive_limits(archive_limits),
            ),
            convert.content(data),
        )

    async def apply_patch(
        self,
        operations: ApplyPatchOperation
        | dict[str, object]
        | list[ApplyPatchOperation | dict[str, object]],
        *,
        patch_format: PatchFormat | Literal["v4a"] = "v4a",
    ) -> str:
        """Apply patch operations in one activity, at most once, and return "Done!".

        Raises:
            InvalidRequest: `patch_format` is an object, which cannot be sent to the worker.
            ApplyPatchPathError: A path is outside the workspace.
            ApplyPatchDiffError: A diff does not apply to its file.
            OutcomeUnknown: The worker stopped answering; the patch was not repeated.
        """
        if patch_format != "v4a":
            raise InvalidRequest(
                f"apply_patch: in a workflow the only patch_format is 'v4a', not {patch_format!r}: "
                f"the patch is applied on the worker."
            )
        await self.patch(_coerce_operations(operations))
        return "Done!"

    async def patch(
        self,
        operations: Sequence[ApplyPatchOperation],
        *,
        user: str | User | None = None,
        cwd: str | None = None,
    ) -> list[str]:
        """Apply patch operations in one activity and return the SDK editor's answer to each."""
        applied = await self._call(
            ops.APPLY_PATCH,
            m.ApplyPatchRequest(
                session=self._ref,
                operations=tuple(map(convert.patch_operation, operations)),
                user=convert.user_name(user),
                cwd=cwd,
            ),
        )
        return list(applied.outputs)

    async def list_skills(self, source: LocalDir, skills_path: str) -> list[SkillMetadata]:
        """Return the metadata of the skills in a directory on the worker."""
        listed = await self._call(
            ops.LIST_SKILLS,
            m.ListSkillsRequest(
                session=self._ref, source=dump_entry(source), skills_path=skills_path
            ),
        )
        return [convert.skill_metadata(skill) for skill in listed.skills]

    async def load_skill(
        self,
        source: LocalDir,
        skill_name: str,
        skills_path: str,
        *,
        user: str | User | None = None,
    ) -> dict[str, str]:
        """Copy a skill from the worker and return the SDK's answer to the model."""
        loaded = await self._call(
            ops.LOAD_SKILL,
            m.LoadSkillRequest(
                session=self._ref,
                source=dump_entry(source),
                skills_path=skills_path,
                skill_name=skill_name,
                user=convert.user_name(user),
            ),
        )
        return {"status": loaded.status, "skill_name": loaded.skill_name, "path": loaded.path}

    # --- Paths ----------------------------------------------------------------------------------

    def _workspace_path_policy(self) -> WorkspacePathPolicy:
        manifest = self.state.manifest
        return _PurePathPolicy(root=manifest.root, extra_path_grants=manifest.extra_path_grants)

    def normalize_path(self, path: Path | str, *, for_write: bool = False) -> Path:
        """Return the absolute sandbox path according to the workspace's rules.

        The worker checks symlinks against the real file system when the path is used.
        """
        return posix_path_as_path(
            self._workspace_path_policy().normalize_sandbox_path(
                convert.path(path), for_write=for_write
            )
        )

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        valid = await self._call(
            ops.VALIDATE_PATH_ACCESS,
            m.ValidatePathAccessRequest(
                session=self._ref, path=convert.path_text(path), for_write=for_write
            ),
        )
        return Path(valid.path)
