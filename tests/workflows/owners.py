"""Workflows that own a sandbox and end in every possible way without deleting it."""

from __future__ import annotations

from typing import Any

from temporalio import workflow
from temporalio.common import VersioningBehavior
from temporalio.exceptions import ApplicationError

from sandbox_core.wire.agents_models import dump_state, load_state
from sandbox_core.workflow import temporal_sandbox_client


@workflow.defn
class OwnsSandbox:
    """Makes a sandbox, or takes the one it is given, and does as it is told."""

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None
        self._told = ""

    @workflow.run
    async def run(self, provider: str, state: dict[str, Any] | None = None) -> str:
        client = temporal_sandbox_client(provider)
        session = await (client.create() if state is None else client.resume(load_state(state)))
        self._state = dump_state(session.state)
        await workflow.wait_condition(lambda: bool(self._told))
        if self._told == "continue as new":
            workflow.continue_as_new(args=[provider, self._state])
        if self._told == "fail":
            raise ApplicationError("told to")
        return self._told

    @workflow.update
    async def sandbox_state(self) -> dict[str, Any]:
        """Return the state of its session, as soon as it has one."""
        await workflow.wait_condition(lambda: self._state is not None)
        assert self._state is not None
        return self._state

    @workflow.signal
    def tell(self, what: str) -> None:
        self._told = what


@workflow.defn(versioning_behavior=VersioningBehavior.AUTO_UPGRADE)
class Versioned:
    """Says how it behaves on a worker with versions."""

    @workflow.run
    async def run(self) -> None:
        return
