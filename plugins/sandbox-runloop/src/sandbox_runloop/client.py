"""The SDK's Runloop client, with labels on its devboxes, and errors that the SDK's ignores."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agents.extensions.sandbox.runloop import (
    RunloopSandboxClient,
    RunloopSandboxClientOptions,
    RunloopSandboxSessionState,
)
from agents.sandbox import Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from runloop_api_client import APIStatusError, NotFoundError, RateLimitError

from sandbox_core.errors import AtCapacity
from sandbox_core.providers import retry_after_of
from sandbox_runloop.labelling import LabellingSDK

if TYPE_CHECKING:
    from runloop_api_client.resources.devboxes import AsyncDevboxesResource

_GONE = ("failure", "shutdown")
_ELSEWHERE = Manifest().root
"""The SDK's own default for a workspace, which Runloop does not allow."""


class LabellingRunloopSandboxClient(RunloopSandboxClient):
    """The SDK's client, optionally with labels for its devboxes."""

    @property
    def devboxes(self) -> AsyncDevboxesResource:
        """The part of Runloop's API for devboxes."""
        devboxes: AsyncDevboxesResource = self._sdk.api.devboxes
        return devboxes

    def labelled(self, labels: Mapping[str, str]) -> LabellingRunloopSandboxClient:
        """Return a client of the same connection whose devboxes have labels."""
        made = copy.copy(self)
        # The client and its sessions make devboxes through this object, whatever they make them of.
        made._sdk = LabellingSDK(self._sdk, labels)
        return made

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: RunloopSandboxClientOptions | None,
    ) -> SandboxSession:
        """Create a devbox; a manifest with the SDK's default root gets the user's home instead.

        Raises:
            AtCapacity: Runloop's limit is reached.
            APIError: Runloop did not create it.
        """
        if manifest is not None and manifest.root == _ELSEWHERE:
            manifest = manifest.model_copy(update={"root": _home(options)})
        try:
            return await super().create(snapshot=snapshot, manifest=manifest, options=options)
        except RateLimitError as error:
            # Runloop's SDK has already retried several times, and waited as it was told to.
            raise AtCapacity(
                f"provider 'runloop' has no room for another devbox: {error}",
                retry_after=retry_after_of(error),
            ) from error

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Open the devbox of `state`, or a new one if Runloop no longer has it.

        Raises:
            ConnectionError: Runloop has the devbox but did not connect.
            APIError: Runloop did not say whether it has the devbox.
        """
        if not isinstance(state, RunloopSandboxSessionState):
            return await super().resume(state)
        asked = state.devbox_id
        session = await super().resume(state)
        # The SDK's client creates another one on any error, even a temporary one.
        if state.devbox_id != asked:
            try:
                if await self.exists(asked):
                    raise ConnectionError(f"Runloop has devbox {asked}, but did not connect to it")
            except BaseException:
                await self.destroy(state.devbox_id)
                raise
        return session

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Shut the session's devbox down, or suspend it if its options say so.

        Raises:
            APIError: Runloop did not shut it down.
        """
        deleted = await super().delete(session)
        # The SDK's client ignores errors.
        state = session.state
        if isinstance(state, RunloopSandboxSessionState) and not state.pause_on_exit:
            await self.destroy(state.devbox_id)
        return deleted

    async def exists(self, devbox_id: str) -> bool:
        """Return whether Runloop has the devbox, running or suspended."""
        try:
            return (await self.devboxes.retrieve(devbox_id)).status not in _GONE
        except NotFoundError:
            return False

    async def destroy(self, devbox_id: str) -> None:
        """Shut the devbox down, if it exists."""
        try:
            await self.devboxes.shutdown(devbox_id)
        except APIStatusError:
            if await self.exists(devbox_id):
                raise


def _home(options: RunloopSandboxClientOptions | None) -> str:
    user = None if options is None else options.user_parameters
    if isinstance(user, Mapping):
        name = str(user.get("username"))
    else:
        name = "user" if user is None else user.username
    return "/root" if name == "root" else f"/home/{name}"
