"""Messages about the manifest and whole workspaces."""

from __future__ import annotations

from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages.base import Message, SessionRequest


class ApplyManifestRequest(SessionRequest):
    """Materialize the manifest of the session, or only its ephemeral entries."""

    only_ephemeral: bool = False


class PlacedEntry(Message):
    """A manifest entry and the absolute path in the sandbox where it goes."""

    path: str
    entry: JsonObject


class ApplyEntriesRequest(SessionRequest):
    """Materialize some entries."""

    entries: tuple[PlacedEntry, ...]

    def summary(self) -> str:
        return f"{len(self.entries)} entries"


class WrittenFile(Message):
    """A file that was copied from the worker's disk, and its SHA-256 in hexadecimal."""

    path: str
    sha256: str


class MaterializationResponse(Message):
    """The files that were copied from the worker's disk."""

    files: tuple[WrittenFile, ...] = ()


class PersistWorkspaceRequest(SessionRequest):
    """Archive the workspace; the answer is the archive's bytes."""


class HydrateWorkspaceRequest(SessionRequest):
    """Fill the workspace from an archive, the second argument."""
