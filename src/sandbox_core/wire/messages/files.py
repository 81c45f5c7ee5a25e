"""Messages for files, paths and patches."""

from __future__ import annotations

from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages.base import ArchiveLimits, Message, PathRequest, SessionRequest


class ReadRequest(PathRequest):
    """Read a file, or with `max_bytes` only its first bytes."""

    max_bytes: int | None = None


class WriteRequest(PathRequest):
    """Write a file; with `new`, fail if it exists."""

    new: bool = False


class LsRequest(PathRequest):
    """List a directory."""


class DirectoryEntry(Message):
    """A directory entry; `permissions` are the SDK's, `size` is in bytes."""

    path: str
    kind: str
    owner: str
    group: str
    size: int
    permissions: JsonObject


class LsResponse(Message):
    """The entries of a directory, in the backend's order."""

    entries: tuple[DirectoryEntry, ...] = ()


class MkdirRequest(PathRequest):
    """Create a directory."""

    parents: bool = False


class RmRequest(PathRequest):
    """Remove a file, or with `recursive` a directory."""

    recursive: bool = False


class MoveRequest(SessionRequest):
    """Rename a regular file or symlink, replacing an existing file or symlink."""

    source: str
    destination: str
    user: str | None = None

    def summary(self) -> str:
        return f"{self.source} to {self.destination}"


class SameFileRequest(SessionRequest):
    """Return whether two paths are the same file; symlinks count only with `follow_symlinks`."""

    left: str
    right: str
    follow_symlinks: bool = True
    user: str | None = None

    def summary(self) -> str:
        return f"{self.left} and {self.right}"


class SameFileResponse(Message):
    """Whether the two paths are the same file."""

    same: bool


class ExtractRequest(PathRequest):
    """Write an archive to a path and extract it there."""

    compression_scheme: str | None = None
    archive_limits: ArchiveLimits | None = None


class ValidatePathAccessRequest(PathRequest):
    """Check a path, symlinks included, against the sandbox's real file system."""

    for_write: bool = False


class ValidatePathAccessResponse(Message):
    """The normalised path."""

    path: str


class PatchOperation(Message):
    """The SDK's `ApplyPatchOperation`."""

    type: str
    path: str
    diff: str | None = None
    move_to: str | None = None


class ApplyPatchRequest(SessionRequest):
    """Apply patch operations in order; relative paths are relative to `cwd`."""

    operations: tuple[PatchOperation, ...]
    user: str | None = None
    cwd: str | None = None

    def summary(self) -> str:
        return " ".join(operation.path for operation in self.operations)


class ApplyPatchResponse(Message):
    """The SDK editor's answer to each operation."""

    outputs: tuple[str, ...] = ()
