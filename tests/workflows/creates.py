"""Workflows that create sandboxes, and report their ids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.errors import SandboxError
from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import SandboxCoreError
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import dump_manifest, load_state
from sandbox_core.workflow import temporal_sandbox_client
from sandbox_core.workflow.dispatch import dispatch

HEARTBEAT = timedelta(seconds=1)


@dataclass
class Hold:
    """Which provider's sandbox to create; with `spoilt`, one whose first start fails."""

    provider: str
    timeout_s: float = 60
    spoilt: bool = False


@workflow.defn
class CreateAndHold:
    """Creates a sandbox, and deletes it when it is told to."""

    def __init__(self) -> None:
        self._root = ""
        self._finished = False

    @workflow.run
    async def run(self, hold: Hold) -> str:
        config = ActivityConfig(
            start_to_close_timeout=timedelta(seconds=hold.timeout_s), heartbeat_timeout=HEARTBEAT
        )
        client = temporal_sandbox_client(hold.provider, config)
        # The second entry is below the first, which is no directory.
        spoilt = Manifest(entries={"file": File(content=b""), "file/below": File(content=b"")})
        session = await client.create(manifest=spoilt if hold.spoilt else None)
        async with session:
            self._root = session.state.manifest.root
            await workflow.wait_condition(lambda: self._finished)
        await client.delete(session)
        return self._root

    @workflow.update
    async def root(self) -> str:
        """Return the directory of the sandbox as soon as there is one."""
        await workflow.wait_condition(lambda: bool(self._root))
        return self._root

    @workflow.signal
    def finish(self) -> None:
        self._finished = True


@workflow.defn
class UsesWhatWasDiscarded:
    """Runs a command although the first start has failed; answers with the error's class."""

    @workflow.run
    async def run(self) -> list[str]:
        client = temporal_sandbox_client("local")
        spoilt = Manifest(entries={"file": File(content=b""), "file/below": File(content=b"")})
        session = await client.create(manifest=spoilt)
        raised = []
        for use in (session.start, lambda: session.exec("true")):
            try:
                await use()
            except (SandboxError, SandboxCoreError) as error:  # noqa: PERF203 - of two
                raised.append(type(error).__name__)
        await client.delete(session)
        return raised


@workflow.defn
class SameKeyTwice:
    """Makes two creates with one key; answers with the error of the second, or its root."""

    @workflow.run
    async def run(self, other_options: bool) -> list[str]:
        config = ActivityConfig(start_to_close_timeout=timedelta(seconds=30))
        request = m.CreateSessionRequest(create_key=workflow.uuid4().hex, epoch=1)
        opened = await dispatch("local", config, ops.CREATE_SESSION, request)
        if other_options:
            manifest = Manifest(entries={"file": File(content=b"")})
            request = request.model_copy(update={"manifest": dump_manifest(manifest)})
        try:
            again = await dispatch("local", config, ops.CREATE_SESSION, request)
            return [load_state(one.state_delta).manifest.root for one in (opened, again)]
        finally:
            deleting = m.DeleteSessionRequest(session=opened.session)
            await dispatch("local", config, ops.DELETE_SESSION, deleting)
