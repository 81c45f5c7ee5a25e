"""What the id of a snapshot says: whether a workspace was saved to it.

A session that was created with a snapshot spec has a snapshot before anything is saved to it. The
Agents SDK gives it the session's id, a random UUID. Each save is a new object, under a UUID that is
derived from the save. Any other id was chosen by the user, who wants the workspace to come from it.
"""

from __future__ import annotations

import uuid

from agents.sandbox.snapshot import NoopSnapshot, SnapshotBase

_RANDOM = 4


def saved_id(save: str) -> str:
    """Return the id of the snapshot that `save`, which names no other save, makes.

    It has a session id's format: `sandbox-core storage gc` collects no snapshot that a user named.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"sandbox-core:{save}"))


def is_saved(snapshot: SnapshotBase) -> bool:
    """Return whether a workspace must have been saved to `snapshot`.

    False is no proof of the opposite: earlier versions saved to the id that the SDK gave.
    """
    if isinstance(snapshot, NoopSnapshot):
        return False
    try:
        return uuid.UUID(snapshot.id).version != _RANDOM
    except ValueError:
        return True
