"""The sandbox client that workflows use."""

from __future__ import annotations

import sys
from typing import TypeVar, cast

from agents.sandbox import Manifest
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import InvalidOptions, InvalidRequest
from sandbox_core.wire import messages as m
from sandbox_core.wire.agents_models import (
    JsonObject,
    dump_manifest,
    dump_options,
    dump_snapshot,
    dump_state,
    load_state,
    with_encoded_contents,
)
from sandbox_core.wire.naming import check_provider_name
from sandbox_core.workflow.binding import (
    next_epoch,
    resume_session,
)
from sandbox_core.workflow.creation import create_session
from sandbox_core.workflow.dispatch import DEFAULT_START_TO_CLOSE_TIMEOUT
from sandbox_core.workflow.session import TemporalSandboxSession
from sandbox_core.workflow.session_wrapper import WorkflowSandboxSession, workflow_session

_T = TypeVar("_T")


class TemporalSandboxClient(BaseSandboxClient[BaseSandboxClientOptions | None]):
    """A `BaseSandboxClient` that does everything on a worker, through activities.

    It holds no state and does no I/O; the real client lives on the worker, in the provider of the
    given name. Use it with `Runner` through ``SandboxRunConfig(client=...)``, or directly::

        client = temporal_sandbox_client("daytona")
        session = await client.create(options=DaytonaSandboxClientOptions())
        try:
            async with session:
                await session.exec("pytest", "-q")
        finally:
            await client.delete(session)

    Args:
        name: The provider's name; it becomes a part of every activity type in the history.
        config: Temporal's options for the activities. The default is a start-to-close timeout of
            five minutes, and a heartbeat timeout of 30 seconds; see `dispatch.activity_options`.

    Raises:
        InvalidProviderName: `name` does not follow the rule for provider names.
        InvalidRequest: `config` has a key that Temporal's ActivityConfig does not have.
    """

    # Options may be None: the provider's own default then applies, on the worker.
    supports_default_options = True

    def __init__(self, name: str, config: ActivityConfig | None = None) -> None:
        self._name = check_provider_name(name)
        if unknown := sorted((config or {}).keys() - ActivityConfig.__annotations__.keys()):
            raise InvalidRequest(
                f"config has no {unknown[0]!r}; it takes "
                f"{', '.join(sorted(ActivityConfig.__annotations__))}"
            )
        self._config = config or ActivityConfig(
            start_to_close_timeout=DEFAULT_START_TO_CLOSE_TIMEOUT
        )
        self.backend_id = name
        _register_with_openai_runner()

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: BaseSandboxClientOptions | None = None,
    ) -> WorkflowSandboxSession:
        """Create a sandbox and return a session for it, not started yet.

        Args:
            snapshot: What its workspace begins with, and where it is saved: a snapshot of another
                session's state, or a spec of a new one. None saves nothing.
            manifest: The files, users and environment of its workspace. None is an empty one.
            options: The backend's own options. None takes the provider's default.

        Raises:
            InvalidOptions: `options` are another backend's.
            UnknownProvider: No worker of the task queue offers the provider.
            AtCapacity: For an hour, or the config's schedule-to-close timeout, every worker had as
                many sandboxes as it may.
        """
        if options is not None and not isinstance(options, BaseSandboxClientOptions):
            raise InvalidOptions(
                f"options are an instance of the provider's options class, not a "
                f"{type(options).__name__}: write the class that provider {self._name!r} names"
            )
        request = m.CreateSessionRequest(
            create_key=workflow.uuid4().hex,
            epoch=next_epoch(),
            manifest=None if manifest is None else dump_manifest(manifest),
            snapshot=None if snapshot is None else dump_snapshot(snapshot),
            options=None if options is None else dump_options(options),
        )
        opened, state = await create_session(self._name, self._config, request)
        return self._session(opened, state, idempotency_key=request.create_key)

    async def resume(self, state: SandboxSessionState) -> WorkflowSandboxSession:
        """Return a session for the sandbox of `state`, or for its replacement.

        A workspace that is in use is kept as it is. Several workflows and handles may have the same
        session; see "Several users of one session" in the guide.

        Args:
            state: A session's state, or what `deserialize_session_state` returns of a saved one.

        Raises:
            InvalidRequest: `state` has lost the class that its provider gives it, or it names paths
                of a host.
            UnknownProvider: No worker of the task queue offers the provider.
            SandboxLost: The sandbox is gone, and there is no snapshot to restore it from.
        """
        if not isinstance(state, SandboxSessionState):
            raise InvalidRequest(
                f"resume takes a session's state, not a {type(state).__name__}: read a saved one "
                f"with client.deserialize_session_state(...)"
            )
        opened, resumed = await resume_session(
            self._name,
            self._config,
            m.ResumeSessionRequest(state=dump_state(state), epoch=next_epoch(), owner=_ancestor()),
        )
        return self._session(opened, resumed)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete the sandbox of a session that a `TemporalSandboxClient` has made.

        It is deleted for all who use it; deleting it again does nothing.

        Raises:
            InvalidRequest: The session is another client's.
        """
        inner = workflow_session(session)
        if inner is None:
            raise InvalidRequest(
                f"delete takes a session that TemporalSandboxClient has made, not this "
                f"{type(session).__name__}"
            )
        await inner.delete()
        return session

    def serialize_session_state(self, state: SandboxSessionState) -> dict[str, object]:
        """Return `state` as JSON, without a mount's credentials and the paths of a host."""
        # The SDK's serializer stops at file contents that are not UTF-8.
        return super().serialize_session_state(with_encoded_contents(state))

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Return the session state of the class that the provider has registered."""
        return load_state(cast("JsonObject", payload))

    def _session(
        self,
        opened: m.OpenSessionResponse,
        state: SandboxSessionState,
        *,
        idempotency_key: str | None = None,
    ) -> WorkflowSandboxSession:
        return WorkflowSandboxSession(
            TemporalSandboxSession(
                self._name,
                self._config,
                opened=opened,
                state=state,
                idempotency_key=idempotency_key,
            )
        )


def temporal_sandbox_client(
    name: str, config: ActivityConfig | None = None
) -> TemporalSandboxClient:
    """Return the sandbox client for provider `name`; see `TemporalSandboxClient`."""
    return TemporalSandboxClient(name, config)


def _ancestor() -> m.WorkflowRun | None:
    """Return the workflow that outlives this one, if it is a child: it has passed the state on."""
    info = workflow.info()
    ancestor = info.root or info.parent
    if info.parent is None or ancestor is None:
        return None
    return m.WorkflowRun(workflow_id=ancestor.workflow_id, run_id=ancestor.run_id)


def _register_with_openai_runner() -> None:
    # OpenAIAgentsPlugin's runner accepts only instances of its own client class. Where that runner
    # is in use its module is loaded, so that distribution is neither imported nor needed here.
    module = sys.modules.get("temporalio.openai_agents.sandbox._temporal_sandbox_client")
    if module is not None:
        module.TemporalSandboxClient.register(TemporalSandboxClient)
