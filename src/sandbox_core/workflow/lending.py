"""Lets the SDK make memories in a workflow.

The SDK runs the agents that write memories in the live session of the run. The OpenAI plugin's
runner takes no live session, only a client, so they are given a client that lends them the session.
"""

from __future__ import annotations

from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest
from agents.sandbox.memory.manager import SandboxMemoryGenerationManager
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec, SnapshotBase, SnapshotSpec
from temporalio import workflow

from sandbox_core.workflow.client import TemporalSandboxClient, WorkflowSandboxSession
from sandbox_core.workflow.session import TemporalSandboxSession

_sdk_run_config = SandboxMemoryGenerationManager._memory_run_config


def memory_run_config(manager: SandboxMemoryGenerationManager) -> RunConfig:
    """Return the run config of the agents that write memories."""
    session = workflow_session(manager._session)
    if session is None or not workflow.in_workflow():
        return _sdk_run_config(manager)
    return RunConfig(
        sandbox=SandboxRunConfig(client=_LendingClient(session), snapshot=NoopSnapshotSpec())
    )


def workflow_session(session: BaseSandboxSession) -> TemporalSandboxSession | None:
    """Return the workflow's session that `session` is or wraps, if it is one."""
    inner = session._inner if isinstance(session, SandboxSession) else session
    return inner if isinstance(inner, TemporalSandboxSession) else None


class _LentSession(WorkflowSandboxSession):
    """Somebody else's session, which they start and end themselves."""

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        return

    async def shutdown(self) -> None:
        return

    async def _aclose_dependencies(self) -> None:
        return


class _LendingClient(TemporalSandboxClient):
    """Answers every create with the one session, and deletes nothing."""

    def __init__(self, session: TemporalSandboxSession) -> None:
        super().__init__(session._provider, session._config)
        self._lent = session

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
