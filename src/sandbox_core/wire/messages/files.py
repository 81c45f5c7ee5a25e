"""Messages about files, paths and patches."""

from __future__ import annotations

from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages.base import ArchiveLimits, Message, PathRequest, SessionRequest


class ReadRequest(PathRequest):
    """Read a file, or with `max_bytes` the first of them; the answer is its bytes."""

    max_bytes: int | None = None


class WriteRequest(PathRequest):
    """Write a file, with `new` only one that is not there; the bytes are the second argument."""

    new: bool = False


class LsRequest(PathRequest):
    """List a directory."""


class DirectoryEntry(Message):
    """One entry of a directory; `permissions` are the SDK's bits (3 a role), `size` is in bytes."""

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
    """Make a directory."""

    parents: bool = False


class RmRequest(PathRequest):
    """Remove a file, or with `recursive` a directory."""

    recursive: bool = False


class MoveRequest(SessionRequest):
    """Rename a regular file or a symlink, in the place of a file or a symlink that is there."""

    source: str
    destination: str
    user: str | None = None

    def summary(self) -> str:
        return f"{self.source} to {self.destination}"


class SameFileRequest(SessionRequest):
    """Ask whether two paths name one file; without `follow_symlinks`, a symlink never does."""

    left: str
    right: str
    follow_symlinks: bool = True
    user: str | None = None

    def summary(self) -> str:
        return f"{self.left} and {self.right}"


class SameFileResponse(Message):
    """Whether they do."""

    same: bool


class ExtractRequest(PathRequest):
    """Extract an archive (the second argument) at a path."""

    compression_scheme: str | None = None
    archive_limits: ArchiveLimits | None = None


class ValidatePathAccessRequest(PathRequest):
    """Check a path against the sandbox's real file system, symlinks included."""

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
    """Apply patch operations, in order, as the named user; `cwd` anchors relative paths."""

    operations: tuple[PatchOperation, ...]
    user: str | None = None
    cwd: str | None = None

    def summary(self) -> str:
        return " ".join(operation.path for operation in self.operations)


class ApplyPatchResponse(Message):
    """What the SDK's editor answered to each operation."""

    outputs: tuple[str, ...] = ()
