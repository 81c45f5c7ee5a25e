"""The SDK's Vercel client, but it creates no superfluous sandboxes, and waits at Vercel's limit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agents.extensions.sandbox.vercel import (
    VercelSandboxClient,
    VercelSandboxClientOptions,
    VercelSandboxSessionState,
)
from agents.sandbox import Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from vercel.sandbox import (
    AsyncSandbox,
    SandboxNotFoundError,
    SandboxRateLimitError,
    SandboxStatus,
)

from sandbox_core.errors import AtCapacity
from sandbox_core.providers import retry_after_of

_THERE = (SandboxStatus.PENDING, SandboxStatus.RUNNING)


@asynccontextmanager
async def _sandbox(sandbox_id: str) -> AsyncIterator[AsyncSandbox | None]:
    """Yield the sandbox, or None if it has ended; close its connection afterwards."""
    try:
        sandbox = await AsyncSandbox.get(sandbox_id=sandbox_id)
    except SandboxNotFoundError:
        yield None
        return
    try:
        yield sandbox if sandbox.status in _THERE else None
    finally:
        await sandbox.client.aclose()


async def exists(sandbox_id: str) -> bool:
    """Return whether the sandbox is running or starting."""
    async with _sandbox(sandbox_id) as sandbox:
        return sandbox is not None


async def stop(sandbox_id: str) -> None:
    """Stop the sandbox, if it is running."""
    async with _sandbox(sandbox_id) as sandbox:
        if sandbox is not None:
            await sandbox.stop(blocking=True)


async def check() -> None:
    """Check that Vercel answers and accepts the credentials."""
    async for _ in AsyncSandbox.list(limit=1):
        break


class StrictVercelSandboxClient(VercelSandboxClient):
    """The SDK's client, but with errors for failures that the SDK's ignores."""

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: VercelSandboxClientOptions,
    ) -> SandboxSession:
        """Create a sandbox.

        Raises:
            AtCapacity: Vercel's limit is reached.
            SandboxError: Vercel did not create it.
        """
        try:
            return await super().create(snapshot=snapshot, manifest=manifest, options=options)
        except SandboxRateLimitError as error:
            raise AtCapacity(
                f"provider 'vercel' has no room for another sandbox: {error}",
                retry_after=retry_after_of(error),
            ) from error

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Open the sandbox of `state`, or a new one if it is no longer running.

        Raises:
            ConnectionError: The sandbox is running but did not answer.
            SandboxError: Vercel did not say whether it is running.
        """
        if not isinstance(state, VercelSandboxSessionState) or not await exists(state.sandbox_id):
            return await super().resume(state)
        asked, persistence = state.sandbox_id, state.workspace_persistence
        # The SDK's client would create another one from the last native snapshot, which is older.
        state.workspace_persistence = "tar"
        try:
            session = await super().resume(state)
        finally:
            state.workspace_persistence = persistence
        # The SDK's client creates another one on any error, even a temporary one.
        if state.sandbox_id != asked:
            await stop(state.sandbox_id)
            raise ConnectionError(f"Vercel has sandbox {asked}, but it did not answer")
        return session

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Stop the session's sandbox.

        Raises:
            SandboxError: Vercel did not stop it.
        """
        deleted = await super().delete(session)
        # The SDK's client forgets a sandbox once it has closed its connection.
        if isinstance(session.state, VercelSandboxSessionState) and session.state.sandbox_id:
            await stop(session.state.sandbox_id)
        return deleted
