"""Runs agents in a session that is already open."""

from __future__ import annotations

from typing import NoReturn

from agents.sandbox import Manifest
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec

from sandbox_core.errors import InvalidRequest
from sandbox_core.workflow.client import TemporalSandboxClient
from sandbox_core.workflow.session import TemporalSandboxSession
from sandbox_core.workflow.session_wrapper import WorkflowSandboxSession, workflow_session


def with_session(session: BaseSandboxSession) -> TemporalSandboxClient:
    """Return a client with which agents run in `session` and leave it open.

    It does what ``SandboxRunConfig(session=session)`` does, for the runner of `OpenAIAgentsPlugin`,
    which accepts only a client. A run starts the session if necessary, adds what the agent's
    capabilities need to the workspace, and neither stops nor deletes the session. The run config's
    manifest, snapshot and options and the agent's own manifest have no effect. Handoffs and
    `Agent.as_tool` use the same session::

        async with await temporal_sandbox_client("local").create() as session:
            sandbox = SandboxRunConfig(client=with_session(session))
            await Runner.run(writer, "Write it.", run_config=RunConfig(sandbox=sandbox))
            await Runner.run(reviewer, "Review it.", run_config=RunConfig(sandbox=sandbox))

    Args:
        session: A session of a `TemporalSandboxClient`; several runs may use it at once.

    Raises:
        InvalidRequest: The session does not come from a `TemporalSandboxClient`.
    """
    inner = workflow_session(session)
    if inner is None:
        raise InvalidRequest(
            f"with_session takes a session of a TemporalSandboxClient, not a "
            f"{type(session).__name__}"
        )
    if not isinstance(session, WorkflowSandboxSession):
        session = WorkflowSandboxSession(inner)
    return _LiveSessionClient(inner.provider, session)


def live_session(client: object) -> WorkflowSandboxSession | None:
    """Return the session behind a client from `with_session`; None for any other client."""
    return client.live if isinstance(client, _LiveSessionClient) else None


def memory_client(session: TemporalSandboxSession) -> TemporalSandboxClient:
    """Return the client with which the agents that write memories run in `session`.

    The SDK asks a live session several times whether it is running. For a session of generation 0
    each of these is an activity that old histories do not have; there the client hands out the
    session as if it had created it, and starting and ending it has no effect.
    """
    if session.generation > 0:
        return with_session(session)
    return _LendingClient(session)


class _LentSession(WorkflowSandboxSession):
    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def shutdown(self) -> None:
        return

    async def _aclose_dependencies(self) -> None:
        return


class _LendingClient(TemporalSandboxClient):
    def __init__(self, lent: TemporalSandboxSession) -> None:
        super().__init__(lent.provider)
        self._lent = lent

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: BaseSandboxClientOptions | None = None,
    ) -> WorkflowSandboxSession:
        return _LentSession(self._lent)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        return session


class _LiveSessionClient(TemporalSandboxClient):
    """Stands for one session, which the patched session manager takes from it."""

    def __init__(self, provider: str, live: WorkflowSandboxSession) -> None:
        super().__init__(provider)
        self.live = live

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: BaseSandboxClientOptions | None = None,
    ) -> NoReturn:
        _refuse("create")

    async def resume(self, state: SandboxSessionState) -> NoReturn:
        _refuse("resume")


def _refuse(method: str) -> NoReturn:
    raise InvalidRequest(
        f"{method}: a client from with_session(session) is only for SandboxRunConfig(client=...). "
        f"Use temporal_sandbox_client(name) for other sessions."
    )
