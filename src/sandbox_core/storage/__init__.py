"""Large payloads and workspace snapshots in an object store.

This module itself imports nothing, so that workflows can name the snapshot store::

    from agents.sandbox.snapshot import RemoteSnapshotSpec
    from sandbox_core.storage import SNAPSHOT_DEPENDENCY

    snapshot = RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)
"""

SNAPSHOT_DEPENDENCY = "sandbox_core.snapshots"
"""The key under which workers offer the snapshot store to the SDK's `RemoteSnapshot`."""

__all__ = ["SNAPSHOT_DEPENDENCY"]
