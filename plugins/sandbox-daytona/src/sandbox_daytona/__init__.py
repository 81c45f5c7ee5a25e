"""Provider `daytona`: sandboxes at Daytona (https://www.daytona.io).

Daytona's own SDK reads credentials on the worker, from ``DAYTONA_API_KEY`` and, for other
deployments than the public one, ``DAYTONA_API_URL`` and ``DAYTONA_TARGET``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from agents.extensions.sandbox.daytona import DaytonaSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import LabelledSandbox, SandboxClientProvider, hookimpl

if TYPE_CHECKING:
    from agents.extensions.sandbox.daytona import DaytonaSandboxClient

    from sandbox_daytona.client import LabellingDaytonaSandboxClient

__version__ = "0.1.0"


class DaytonaProvider(SandboxClientProvider[DaytonaSandboxClientOptions]):
    """Sandboxes at Daytona, through the SDK's `DaytonaSandboxClient`."""

    name = "daytona"
    summary = "Cloud sandboxes at Daytona"
    api_version = 1
    options_type = DaytonaSandboxClientOptions

    def create_client(self) -> LabellingDaytonaSandboxClient:
        """Return the SDK's client with the credentials of the worker's environment.

        Raises:
            DaytonaError: The environment has no credentials.
        """
        from sandbox_daytona.client import LabellingDaytonaSandboxClient

        return LabellingDaytonaSandboxClient()

    def identity(self, state: SandboxSessionState) -> str:
        """Return Daytona's id of the sandbox.

        Raises:
            InvalidRequest: `state` is another backend's.
        """
        from agents.extensions.sandbox.daytona import DaytonaSandboxSessionState

        if not isinstance(state, DaytonaSandboxSessionState):
            raise InvalidRequest(f"a session state of type {state.type!r} is not Daytona's")
        return state.sandbox_id

    async def exists(self, client: DaytonaSandboxClient, sandbox_id: str) -> bool:
        """Return whether Daytona has the sandbox and is not deleting it."""
        from sandbox_daytona.client import find_sandbox

        return await find_sandbox(client, sandbox_id) is not None

    async def destroy(self, client: DaytonaSandboxClient, sandbox_id: str) -> None:
        """Delete the sandbox."""
        from sandbox_daytona.client import delete_sandbox

        await delete_sandbox(client, sandbox_id)

    def labelled(
        self, client: LabellingDaytonaSandboxClient, labels: Mapping[str, str]
    ) -> LabellingDaytonaSandboxClient:
        """Return a client whose sandboxes have these labels."""
        return client.labelled(labels)

    async def find(
        self, client: DaytonaSandboxClient, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return Daytona's sandboxes with all of these labels, in any state.

        Daytona's list is eventually consistent. So each listed sandbox is verified, with one
        request each; one with new labels may still be missing.
        """
        from daytona import ListSandboxesQuery

        from sandbox_daytona.client import find_sandbox

        found = []
        async for listed in client._daytona.list(ListSandboxesQuery(labels=dict(labels))):
            sandbox = await find_sandbox(client, listed.id)
            if sandbox is not None and labels.items() <= sandbox.labels.items():
                found.append(
                    LabelledSandbox(
                        sandbox_id=sandbox.id,
                        labels=sandbox.labels,
                        created=_time(sandbox.created_at),
                    )
                )
        return found

    async def relabel(
        self, client: DaytonaSandboxClient, sandbox_id: str, labels: Mapping[str, str]
    ) -> None:
        """Set labels of a sandbox. Daytona replaces all labels, so this reads the others first.

        Raises:
            DaytonaNotFoundError: Daytona does not have the sandbox.
        """
        sandbox = await client._daytona.get(sandbox_id)
        await sandbox.set_labels({**sandbox.labels, **labels})

    async def check(self, client: DaytonaSandboxClient) -> None:
        """Check that Daytona answers and accepts the key."""
        async for _ in client._daytona.list():
            break


def _time(written: str | None) -> datetime | None:
    # Before Python 3.11, `fromisoformat` does not accept "Z".
    return datetime.fromisoformat(written.replace("Z", "+00:00")) if written else None


@hookimpl
def sandbox_client_provider() -> DaytonaProvider:
    """Return the provider."""
    return DaytonaProvider()
