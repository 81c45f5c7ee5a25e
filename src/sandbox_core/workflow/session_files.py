"""The part of a workflow's session that works on files: every operation is one activity."""

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
from sandbox_core.workflow.binding import PlacedSession


class _PurePathPolicy(WorkspacePathPolicy):
    """The SDK's path rules without its look at the file system of the host the workflow runs on."""

    @staticmethod
    def _path_exists(path: Path) -> bool:
        return False


class SessionFiles(PlacedSession):
    """The operations of the SDK's session on files, skills and paths."""

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        """Return the content of a file, as a binary stream that is in memory.

        Args:
            path: The file; a relative path is below the manifest's root.
            user: The user of the sandbox that reads; None is the backend's own.

        Raises:
            WorkspaceReadNotFoundError: There is no such file.
            InvalidManifestPathError: The path, symlinks followed, is in no folder that the session
                may use.
            PayloadTooLarge: It has more bytes than `SandboxPlugin(max_file_bytes=...)`.
        """
        return io.BytesIO(await self._read_file(path, user=convert.user_name(user)))

    async def read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        """Return the first bytes of a file, at most `max_bytes`; only they travel.

        Raises:
            InvalidRequest: `max_bytes` is not positive.
            WorkspaceReadNotFoundError: There is no such file.
        """
        if max_bytes <= 0:
            raise InvalidRequest(f"read_bounded: max_bytes has to be positive, not {max_bytes}.")
        content = await self._read_file(path, max_bytes=max_bytes)
        return content[:max_bytes]  # An older worker reads the whole file.

    async def _read_file(
        self, path: Path, *, user: str | None = None, max_bytes: int | None = None
    ) -> bytes:
        request = m.ReadRequest(
            session=self._ref, path=convert.path_text(path), user=user, max_bytes=max_bytes
        )
        return await self._call(ops.READ, request)

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file, in the place of one that is there.

        Args:
            path: The file; a relative path is below the manifest's root.
            data: What is left of this stream is written; text as UTF-8.
            user: The user of the sandbox that writes; None is the backend's own.

        Raises:
            WorkspaceArchiveWriteError: It could not be written.
            InvalidManifestPathError: The path, symlinks followed, is in no folder that the session
                may write to.
            PayloadTooLarge: It has more bytes than `SandboxPlugin(max_file_bytes=...)`.
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
        """Rename a regular file or a symlink; a file or a symlink at `destination` is replaced.

        Raises:
            ExecNonZeroError: There is no such source, it is a directory or a special file, or
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
        """Return whether two paths name one file of the sandbox, whatever they are spelt like.

        Args:
            left: One path.
            right: The other one.
            follow_symlinks: False says that a path which is a symlink names no other file.
            user: The user of the sandbox that asks; None is the backend's own.
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
            InvalidRequest: It has more entries than a workflow can take.
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
        """Make a directory.

        Args:
            path: The directory; a relative path is below the manifest's root.
            parents: Whether to make the directories above it, and to accept that it is there.
            user: The user of the sandbox that makes it; None is the backend's own.

        Raises:
            ExecNonZeroError: It could not be made.
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
        """Remove a file, or with `recursive` a directory and all in it; of a symlink, itself.

        Raises:
            ExecNonZeroError: It could not be removed, or is not there.
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
        """Write an archive to `path` and extract it into the folder that it is in.

        Args:
            path: Where the archive goes.
            data: The archive.
            compression_scheme: None goes by the name.
            archive_limits: In bytes and members; None is what the run config says.

        Raises:
            WorkspaceArchiveWriteError: It is no such archive, is beyond a limit, or a member of it
                would be written outside of the workspace.
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
        """Apply patch operations in one activity, once, and return "Done!".

        Raises:
            InvalidRequest: `patch_format` is an object, which cannot travel to the worker.
            ApplyPatchPathError: A path is not in the workspace.
            ApplyPatchDiffError: A diff does not fit its file.
            OutcomeUnknown: The worker stopped answering meanwhile; it was not repeated.
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
        """Apply patch operations in one activity, and return what the SDK's editor says of each."""
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
        """Return what the SDK tells of the skills in a folder of the worker's disk."""
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
        """Copy one skill from the worker's disk, and return what the SDK tells the model of it."""
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
        """Return the absolute sandbox path, by the workspace's rules alone.

        Symlinks are checked by the worker when the path is used, against the real file system.
        """
        return posix_path_as_path(
            self._workspace_path_policy().normalize_sandbox_path(Path(path), for_write=for_write)
        )

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        valid = await self._call(
            ops.VALIDATE_PATH_ACCESS,
            m.ValidatePathAccessRequest(
                session=self._ref, path=convert.path_text(path), for_write=for_write
            ),
        )
        return Path(valid.path)
