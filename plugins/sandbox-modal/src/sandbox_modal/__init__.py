"""Provider `modal`: sandboxes at Modal (https://modal.com).

Credentials are read on the worker, from ``MODAL_TOKEN_ID`` and ``MODAL_TOKEN_SECRET``. Modal's own
SDK reads ``MODAL_ENVIRONMENT`` and its other settings. ``SANDBOX_MODAL_APP`` names the app for
sandboxes whose options name none, and ``SANDBOX_MODAL_IMAGE`` the image of all sandboxes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

# The SDK defines the options in its client's module. So this imports `modal` even on a worker that
# only runs workflows, but connects to nothing before `create_client`.
from agents.extensions.sandbox.modal import ModalSandboxClientOptions, ModalSandboxSessionState
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import LabelledSandbox, SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from sandbox_modal.client import LabellingModalSandboxClient

__version__ = "0.1.0"

_TOKEN = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")


class ModalProvider(SandboxClientProvider[ModalSandboxClientOptions]):
    """Sandboxes at Modal, whose sessions are the SDK's `ModalSandboxSession`."""

    name = "modal"
    summary = "Cloud sandboxes at Modal"
    api_version = 1
    options_type = ModalSandboxClientOptions

    def create_client(self) -> LabellingModalSandboxClient:
        """Return the client, which connects when it is first used.

        Raises:
            RuntimeError: ``MODAL_TOKEN_ID`` or ``MODAL_TOKEN_SECRET`` is not set.
        """
        missing = [name for name in _TOKEN if not os.environ.get(name)]
        if missing:
            raise RuntimeError(
                f"{' and '.join(missing)} not set: make a token at "
                f"https://modal.com/settings/tokens and put it into the worker's environment"
            )
        from sandbox_modal.client import LabellingModalSandboxClient

        token_id, token_secret = (os.environ[name] for name in _TOKEN)
        return LabellingModalSandboxClient(
            token_id, token_secret, image=os.environ.get("SANDBOX_MODAL_IMAGE")
        )

    def default_options(self) -> ModalSandboxClientOptions:
        """Return options for the app named by ``SANDBOX_MODAL_APP``, or ``sandbox-core``."""
        app = os.environ.get("SANDBOX_MODAL_APP") or "sandbox-core"
        return ModalSandboxClientOptions(app_name=app)

    def identity(self, state: SandboxSessionState) -> str:
        """Return Modal's id of the sandbox; empty if it was shut down.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        if not isinstance(state, ModalSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not Modal's")
        return state.sandbox_id or ""

    async def exists(self, client: LabellingModalSandboxClient, sandbox_id: str) -> bool:
        """Return whether the sandbox is running: Modal cannot start an ended one again."""
        return await client.modal.running(sandbox_id) is not None

    async def destroy(self, client: LabellingModalSandboxClient, sandbox_id: str) -> None:
        """Terminate the sandbox."""
        await client.modal.terminate(sandbox_id)

    def labelled(
        self, client: LabellingModalSandboxClient, labels: Mapping[str, str]
    ) -> LabellingModalSandboxClient:
        """Return a client whose sandboxes have these tags."""
        return client.labelled(labels)

    async def find(
        self, client: LabellingModalSandboxClient, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return the running sandboxes of the environment that have all of these tags."""
        return [
            LabelledSandbox(sandbox_id=sandbox_id, labels=tags)
            async for sandbox_id, tags in client.modal.find(labels)
        ]

    async def relabel(
        self, client: LabellingModalSandboxClient, sandbox_id: str, labels: Mapping[str, str]
    ) -> None:
        """Set tags of the sandbox; the others stay."""
        await client.modal.set_tags(sandbox_id, labels)

    async def check(self, client: LabellingModalSandboxClient) -> None:
        """Check that Modal answers and accepts the token."""
        await client.modal.check()


@hookimpl
def sandbox_client_provider() -> ModalProvider:
    """Return the provider."""
    return ModalProvider()
