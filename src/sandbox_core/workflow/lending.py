"""Runs agents in a session that is open already."""

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
    """Return a client with which agents run in `session`, which stays open.

    It stands for ``SandboxRunConfig(session=session)`` where the runner of `OpenAIAgentsPlugin`
    takes only a client, and is the same to the SDK: a run starts the session if it is not started,
    adds to its workspace what the agent's capabilities need, and neither stops nor deletes it. The
    manifest, the snapshot and the options of the run config, and the agent's own manifest, have no
    effect. What is run inside the run, `Agent.as_tool` and handoffs, works in the session too::

        async with await temporal_sandbox_client("local").create() as session:
            sandbox = SandboxRunConfig(client=with_session(session))
            await Runner.run(writer, "Write it.", run_config=RunConfig(sandbox=sandbox))
            await Runner.run(reviewer, "Review it.", run_config=RunConfig(sandbox=sandbox))

    Args:
        session: A session of a `TemporalSandboxClient`. Several runs may use it at once.

    Raises:
        InvalidRequest: It is none of a `TemporalSandboxClient`.
    """
    inner = workflow_session(session)
    if inner is None:
        raise InvalidRequest(
            f"with_session takes a session that TemporalSandboxClient has made, not this "
            f"{type(session).__name__}"
        )
    if not isinstance(session, WorkflowSandboxSession):
        session = WorkflowSandboxSession(inner)
    return _LiveSessionClient(inner.provider, session)


def live_session(client: object) -> WorkflowSandboxSession | None:
    """Return the session that a client of `with_session` stands for; of another one None."""
    return client.live if isinstance(client, _LiveSessionClient) else None


def memory_client(session: TemporalSandboxSession) -> TemporalSandboxClient:
    """Return the client with which the agents that write memories run in `session`.

    A live session is asked several times whether it is running. That is no operation of a session
    of today, but was one of a session of generation 0, whose workflow then lent it in this way: the
    client makes the session, and the run starts and ends it without effect.
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
    """Stands for one session, which a run finds in it."""

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
        f"{method}: with_session(session) is for SandboxRunConfig(client=...) and makes no other "
        f"session. Use temporal_sandbox_client(name)."
    )
