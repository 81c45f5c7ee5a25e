"""The SDK's Blaxel client, with labels on its sandboxes, and errors that the SDK's ignores."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus

from agents.extensions.sandbox.blaxel import (
    BlaxelSandboxClient,
    BlaxelSandboxClientOptions,
    BlaxelSandboxSessionState,
)
from agents.sandbox import Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from blaxel.core.client.errors import RateLimitError
from blaxel.core.client.models import Metadata
from blaxel.core.sandbox import SandboxAPIError, SandboxInstance
from blaxel.core.sandbox.types import SandboxUpdateMetadata

from sandbox_blaxel.options import BlaxelOptions
from sandbox_core.errors import AtCapacity
from sandbox_core.providers import LabelledSandbox, LabellingClient, retry_after_of

_GONE = ("DELETING", "FAILED", "TERMINATED")


async def get(name: str) -> SandboxInstance | None:
    """Return the sandbox; None if Blaxel does not have it, or is deleting it."""
    try:
        sandbox = await SandboxInstance.get(name)
    except SandboxAPIError as error:
        if error.status_code == HTTPStatus.NOT_FOUND:
            return None
        raise
    return None if sandbox.status in _GONE else sandbox


async def delete(name: str) -> None:
    """Delete the sandbox, if it exists."""
    if await get(name) is not None:
        await SandboxInstance.delete(name)


async def find(labels: Mapping[str, str]) -> Sequence[LabelledSandbox]:
    """Return the sandboxes with all of these labels, by listing all sandboxes."""
    page = await SandboxInstance.list(limit=200)
    found = []
    async for sandbox in page.auto_paging_iter():
        own = _labels(sandbox.metadata)
        if sandbox.status not in _GONE and labels.items() <= own.items():
            found.append(
                LabelledSandbox(
                    sandbox_id=sandbox.metadata.name,
                    labels=own,
                    created=_time(sandbox.metadata.created_at),
                )
            )
    return found


async def relabel(name: str, labels: Mapping[str, str]) -> None:
    """Set labels of a sandbox; the others stay."""
    await SandboxInstance.update_metadata(name, SandboxUpdateMetadata(labels=dict(labels)))


async def check() -> None:
    """Check that Blaxel answers and accepts the key."""
    await SandboxInstance.list(limit=1)


class LabellingBlaxelSandboxClient(LabellingClient, BlaxelSandboxClient):
    """The SDK's client, optionally with labels for its sandboxes."""

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: BlaxelOptions | BlaxelSandboxClientOptions,
    ) -> SandboxSession:
        """Create a sandbox.

        Raises:
            AtCapacity: Blaxel's limit is reached.
            SandboxAPIError: Blaxel did not create it.
        """
        asked = options.for_sdk() if isinstance(options, BlaxelOptions) else options
        labelled = replace(asked, labels={**(asked.labels or {}), **self._labels})
        try:
            session = await super().create(snapshot=snapshot, manifest=manifest, options=labelled)
        except RateLimitError as error:
            raise AtCapacity(
                f"provider 'blaxel' has no room for another sandbox: {error}",
                retry_after=retry_after_of(error),
            ) from error
        assert isinstance(session.state, BlaxelSandboxSessionState)
        session.state.labels = dict(asked.labels or {})
        return session

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Open the sandbox of `state` or, if it is gone, a new one with another name.

        Raises:
            SandboxAPIError: Blaxel did not say whether it exists.
        """
        if not isinstance(state, BlaxelSandboxSessionState):
            return await super().resume(state)
        there = await get(state.sandbox_name) is not None
        if not there:
            # A replacement of the same name could not be told from the lost sandbox.
            state.sandbox_name = f"agents-{uuid.uuid4().hex[:12]}"
            state.workspace_root_ready = False
        own = state.labels
        state.labels = {**own, **self._labels}
        try:
            session = await super().resume(state)
        finally:
            state.labels = own
        session._inner._set_start_state_preserved(there, system=there)
        return session

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete the session's sandbox, unless its options keep it.

        Raises:
            SandboxAPIError: Blaxel did not delete it.
        """
        deleted = await super().delete(session)
        # The SDK's client only logs errors.
        state = session.state
        if isinstance(state, BlaxelSandboxSessionState) and not state.pause_on_exit:
            await delete(state.sandbox_name)
        return deleted


def _labels(metadata: Metadata) -> dict[str, str]:
    labels = metadata.labels
    return dict(labels.to_dict()) if labels else {}


def _time(written: object) -> datetime | None:
    # Before Python 3.11, `fromisoformat` does not accept "Z".
    return (
        datetime.fromisoformat(written.replace("Z", "+00:00")) if isinstance(written, str) else None
    )
