"""The SDK's Modal client, with tags on its sandboxes, and errors that the SDK's ignores."""

from __future__ import annotations

import uuid

from agents.extensions.sandbox.modal import (
    ModalSandboxClient,
    ModalSandboxClientOptions,
    ModalSandboxSession,
    ModalSandboxSessionState,
)
from agents.sandbox import Manifest
from agents.sandbox._mount_security import (
    _manifest_has_configured_mount_authority,
    redact_mount_error_data,
)
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, resolve_snapshot

from sandbox_core.providers import LabellingClient
from sandbox_modal.api import Modal
from sandbox_modal.session import LabelledModalSandboxSession


class LabellingModalSandboxClient(LabellingClient, ModalSandboxClient):
    """The SDK's client, optionally with tags for its sandboxes.

    Args:
        token_id: The id of a Modal token.
        token_secret: The secret of that token.
        image: The image of sandboxes: a registry tag or Modal's id (``im-...``); None for the SDK's
            default.
    """

    def __init__(self, token_id: str, token_secret: str, *, image: str | None = None) -> None:
        super().__init__()
        self.modal = Modal(token_id, token_secret)
        self._image = image

    @redact_mount_error_data
    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: ModalSandboxClientOptions,
    ) -> SandboxSession:
        """Create a sandbox.

        Raises:
            AtCapacity: The account's limit on sandboxes is reached.
            RefusedByModal: Modal did not create it.
        """
        manifest = manifest if manifest is not None else Manifest()
        self._validate_manifest_for_create(manifest)
        self._validate_manifest_for_workspace_persistence(
            manifest=manifest, workspace_persistence=options.workspace_persistence
        )
        session_id = uuid.uuid4()
        # None means the state's default, except for the builder, where it means Modal's.
        given = {
            name: value
            for name in type(options).model_fields
            if (value := getattr(options, name)) is not None or name == "image_builder_version"
        }
        by_id = self._image is not None and self._image.startswith("im-")
        state = ModalSandboxSessionState(
            **given,
            session_id=session_id,
            manifest=manifest,
            snapshot=resolve_snapshot(snapshot, str(session_id)),
            image_id=self._image if by_id else None,
            image_tag=None if by_id else self._image,
        )
        return await self._open(state)

    @redact_mount_error_data
    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Open the sandbox of `state`, or a new one if it has ended.

        Raises:
            RefusedByModal: Modal did not say whether it is running, or did not create a new one.
        """
        if not isinstance(state, ModalSandboxSessionState):
            raise TypeError(f"a session state of type {state.type!r} is not Modal's")
        state.assert_path_grants_rebound()
        if _manifest_has_configured_mount_authority(state.manifest) and not (
            state.mount_authority_rebound
        ):
            return await super().resume(state)  # The SDK's raises the error.
        if state.mount_authority_rebound:
            state.sandbox_id = None
            state.session_id = uuid.uuid4()
            state.workspace_root_ready = False
        return await self._open(state)

    async def _open(self, state: ModalSandboxSessionState) -> SandboxSession:
        inner = LabelledModalSandboxSession(state=state)
        inner.api, inner.tags = self.modal, self._labels
        if await inner._ensure_sandbox():
            inner._set_start_state_preserved(True)
        return self._wrap_session(inner, instrumentation=self._instrumentation)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Terminate the session's sandbox.

        Raises:
            Exception: Modal did not terminate it.
        """
        inner = session._inner
        if not isinstance(inner, ModalSandboxSession):
            raise TypeError(f"not a session of this client: {type(inner).__name__}")
        if inner.state.sandbox_id:
            await self.modal.terminate(inner.state.sandbox_id)
        return session
