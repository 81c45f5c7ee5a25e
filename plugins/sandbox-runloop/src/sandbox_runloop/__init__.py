"""Provider `runloop`: devboxes at Runloop (https://runloop.ai).

Runloop's own SDK reads credentials on the worker, from ``RUNLOOP_API_KEY`` and, for other
deployments than the public one, ``RUNLOOP_BASE_URL``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from agents.extensions.sandbox.runloop import (
    RunloopSandboxClientOptions,
    RunloopSandboxSessionState,
)
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import LabelledSandbox, SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from sandbox_runloop.client import LabellingRunloopSandboxClient

__version__ = "0.1.0"

_LIVE: Final = (
    "queued",
    "provisioning",
    "initializing",
    "running",
    "suspending",
    "suspended",
    "resuming",
    "running",
)
"""The states of an existing devbox, in order, so that none is missed while its state changes."""


class RunloopProvider(SandboxClientProvider[RunloopSandboxClientOptions]):
    """Devboxes at Runloop, through the SDK's `RunloopSandboxClient`."""

    name = "runloop"
    summary = "Cloud devboxes at Runloop"
    api_version = 1
    options_type = RunloopSandboxClientOptions

    def create_client(self) -> LabellingRunloopSandboxClient:
        """Return the SDK's client; Runloop's SDK reads the worker's environment.

        Raises:
            RuntimeError: ``RUNLOOP_API_KEY`` is not set.
        """
        if not os.environ.get("RUNLOOP_API_KEY"):
            raise RuntimeError(
                "RUNLOOP_API_KEY is not set: make a key at https://platform.runloop.ai/settings "
                "and put it into the worker's environment"
            )
        from sandbox_runloop.client import LabellingRunloopSandboxClient

        return LabellingRunloopSandboxClient()

    def identity(self, state: SandboxSessionState) -> str:
        """Return Runloop's id of the devbox.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        if not isinstance(state, RunloopSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not Runloop's")
        return state.devbox_id

    async def exists(self, client: LabellingRunloopSandboxClient, sandbox_id: str) -> bool:
        """Return whether Runloop has the devbox, running or suspended."""
        return await client.exists(sandbox_id)

    async def destroy(self, client: LabellingRunloopSandboxClient, sandbox_id: str) -> None:
        """Shut the devbox down, which deletes its disk."""
        await client.destroy(sandbox_id)

    def labelled(
        self, client: LabellingRunloopSandboxClient, labels: Mapping[str, str]
    ) -> LabellingRunloopSandboxClient:
        """Return a client whose devboxes have these labels in their metadata."""
        return client.labelled(labels)

    async def find(
        self, client: LabellingRunloopSandboxClient, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return the account's devboxes with all of these labels, running or not.

        Runloop's list cannot be filtered by metadata, so this reads all devboxes.
        """
        found = {}
        for status in _LIVE:
            async for devbox in client.devboxes.list(status=status, limit=1000):
                if labels.items() <= devbox.metadata.items():
                    found[devbox.id] = LabelledSandbox(
                        sandbox_id=devbox.id,
                        labels=devbox.metadata,
                        created=datetime.fromtimestamp(devbox.create_time_ms / 1000, timezone.utc),
                    )
        return list(found.values())

    async def relabel(
        self, client: LabellingRunloopSandboxClient, sandbox_id: str, labels: Mapping[str, str]
    ) -> None:
        """Set labels of a devbox. Runloop replaces its whole metadata, so this reads it first.

        Raises:
            NotFoundError: Runloop does not have the devbox.
        """
        devbox = await client.devboxes.retrieve(sandbox_id)
        await client.devboxes.update(sandbox_id, metadata={**devbox.metadata, **labels})

    async def check(self, client: LabellingRunloopSandboxClient) -> None:
        """Check that Runloop answers and accepts the key."""
        await client.devboxes.list(limit=1)


@hookimpl
def sandbox_client_provider() -> RunloopProvider:
    """Return the provider."""
    return RunloopProvider()
