"""Messages for manifests and whole workspaces."""

from __future__ import annotations

from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages.base import Message, SessionRequest


class ApplyManifestRequest(SessionRequest):
    """Materialize the session's manifest, or only its ephemeral entries."""

    only_ephemeral: bool = False


class PlacedEntry(Message):
    """A manifest entry and its absolute path in the sandbox."""

    path: str
    entry: JsonObject


class ApplyEntriesRequest(SessionRequest):
    """Materialize individual entries."""

    entries: tuple[PlacedEntry, ...]

    def summary(self) -> str:
        return f"{len(self.entries)} entries"


class WrittenFile(Message):
    """A file copied from the worker's disk, and its SHA-256 in hexadecimal."""

    path: str
    sha256: str


class MaterializationResponse(Message):
    """The files copied from the worker's disk."""

    files: tuple[WrittenFile, ...] = ()


class PersistWorkspaceRequest(SessionRequest):
    """Return the workspace as an archive."""


class HydrateWorkspaceRequest(SessionRequest):
    """Fill the workspace from an archive."""
