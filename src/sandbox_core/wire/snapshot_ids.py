"""Determines from a snapshot's id whether a workspace was saved to it.

A session that was created with a snapshot spec has a snapshot before anything is saved to it. The
Agents SDK gives it the session's id, a random UUID. Each save is a new object, under a UUID that is
derived from the save. Any other id was chosen by the user.
"""

from __future__ import annotations

import uuid

from agents.sandbox.snapshot import NoopSnapshot, SnapshotBase

_DERIVED = 5


def saved_id(save: str) -> str:
    """Return the id of the snapshot made by the save with the unique name `save`.

    It has a session id's format: `sandbox-core storage gc` collects no snapshot that a user named.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"sandbox-core:{save}"))


def is_saved(snapshot: SnapshotBase) -> bool:
    """Return whether `snapshot` was certainly made by one of our saves.

    False does not mean that it was not: earlier versions saved to the SDK's id. An id chosen by the
    user may name a snapshot that is not saved yet, and the SDK starts such a session afresh.
    """
    if isinstance(snapshot, NoopSnapshot):
        return False
    try:
        return uuid.UUID(snapshot.id).version == _DERIVED
    except ValueError:
        return False
