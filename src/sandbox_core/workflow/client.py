"""The sandbox client that workflows use."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Literal, TypeVar, cast

from agents import tracing
from agents.editor import ApplyPatchOperation
from agents.run_config import SandboxArchiveLimits
from agents.sandbox import Manifest
from agents.sandbox.apply_patch import PatchFormat
from agents.sandbox.entries import BaseEntry
from agents.sandbox.errors import OpName
from agents.sandbox.materialization import MaterializationResult, MaterializedFile
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from agents.sandbox.workspace_paths import WorkspacePathPolicy
from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire import messages as m
from sandbox_core.wire.agents_models import (
    JsonObject,
    apply_delta,
    dump_manifest,
    dump_options,
    dump_snapshot,
    dump_state,
    load_state,
    with_encoded_contents,
)
from sandbox_core.wire.naming import check_provider_name
from sandbox_core.workflow.binding import (
    BoundSession,
    Restoration,
    next_epoch,
    resume_session,
)
from sandbox_core.workflow.creation import create_session
from sandbox_core.workflow.dispatch import DEFAULT_START_TO_CLOSE_TIMEOUT
from sandbox_core.workflow.session import TemporalSandboxSession

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
    """

    # Options may be None: the provider's own default then applies, on the worker.
    supports_default_options = True

    def __init__(self, name: str, config: ActivityConfig | None = None) -> None:
        self._name = check_provider_name(name)
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

        Raises:
            InvalidOptions: `options` are another backend's.
            UnknownProvider: No worker of the task queue offers the provider.
            AtCapacity: For an hour, or the config's schedule-to-close timeout, every worker had as
                many sandboxes as it may.
        """
        request = m.CreateSessionRequest(
            create_key=workflow.uuid4().hex,
            epoch=next_epoch(),
            manifest=None if manifest is None else dump_manifest(manifest),
            snapshot=None if snapshot is None else dump_snapshot(snapshot),
            options=None if options is None else dump_options(options),
        )
        opened = await create_session(self._name, self._config, request)
        base: JsonObject = {} if request.manifest is None else {"manifest": request.manifest}
        return self._session(
            opened,
            load_state(apply_delta(base, opened.state_delta)),
            create_key=request.create_key,
        )

    async def resume(self, state: SandboxSessionState) -> WorkflowSandboxSession:
        """Return a session for the sandbox of `state`, or for its replacement."""
        opened, resumed = await resume_session(
            self._name,
            self._config,
            m.ResumeSessionRequest(state=dump_state(state), epoch=next_epoch()),
        )
        return self._session(opened, resumed)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete the sandbox of a session that this client has made."""
        inner = session._inner
        if not isinstance(inner, TemporalSandboxSession):
            raise InvalidRequest(
                f"delete takes a session that TemporalSandboxClient has made, not one around a "
                f"{type(inner).__name__}"
            )
        await inner.delete()
        return session

    def _serialize_session_state(self, state: SandboxSessionState) -> dict[str, object]:
        # The SDK's serializer stops at file contents that are not UTF-8.
        return super()._serialize_session_state(with_encoded_contents(state))

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Return the session state of the class that the provider has registered."""
        return load_state(cast("JsonObject", payload))

    def _session(
        self,
        opened: m.OpenSessionResponse,
        state: SandboxSessionState,
        *,
        create_key: str | None = None,
    ) -> WorkflowSandboxSession:
        return self._wrap_session(
            TemporalSandboxSession(
                self._name, self._config, opened=opened, state=state, create_key=create_key
            )
        )

    def _wrap_session(
        self, inner: BaseSandboxSession, *, instrumentation: Instrumentation | None = None
    ) -> WorkflowSandboxSession:
        return WorkflowSandboxSession(
            inner, instrumentation=instrumentation, dependencies=self._resolve_dependencies()
        )


def temporal_sandbox_client(
    name: str, config: ActivityConfig | None = None
) -> TemporalSandboxClient:
    """Return the sandbox client for provider `name`; see `TemporalSandboxClient`."""
    return TemporalSandboxClient(name, config)


def _register_with_openai_runner() -> None:
    # OpenAIAgentsPlugin's runner accepts only instances of its own client class. Where that runner
    # is in use its module is loaded, so that distribution is neither imported nor needed here.
    module = sys.modules.get("temporalio.openai_agents.sandbox._temporal_sandbox_client")
    if module is not None:
        module.TemporalSandboxClient.register(TemporalSandboxClient)


class WorkflowSandboxSession(SandboxSession):
    """The SDK's instrumented wrapper, with those methods delegated that it composes itself.

    `SandboxSession` runs them in the caller's process out of exec, read and write; here each is one
    operation of the inner session.
    """

    @property
    def restorations(self) -> tuple[Restoration, ...]:
        """What was lost since the session was opened, and replaced from a snapshot."""
        inner = self._inner
        return inner.restorations if isinstance(inner, BoundSession) else ()

    async def _annotate(
        self, *, run: Callable[[], Coroutine[object, object, _T]], **rest: object
    ) -> _T:
        # To ask for the current trace makes the SDK's default provider, with an HTTP client, where
        # nobody has set one. OpenAIAgentsPlugin sets one that is made for workflows.
        if tracing.setup.GLOBAL_TRACE_PROVIDER is None:
            return await run()
        return await super()._annotate(run=run, **rest)  # type: ignore[arg-type]  # passed on as it came

    def _trace_span_data(self, *, op: OpName) -> dict[str, object]:
        data = super()._trace_span_data(op=op)
        if isinstance(self._inner, BoundSession):
            # The SDK names a backend after the module of its session's class.
            data["sandbox.backend"] = self._inner._provider
        return data

    def _workspace_path_policy(self) -> WorkspacePathPolicy:
        return self._inner._workspace_path_policy()

    async def extract(
        self,
        path: Path | str,
        data: io.IOBase,
        *,
        compression_scheme: Literal["tar", "zip"] | None = None,
        archive_limits: SandboxArchiveLimits | None = None,
    ) -> None:
        await self._inner.extract(
            path, data, compression_scheme=compression_scheme, archive_limits=archive_limits
        )

    async def apply_patch(
        self,
        operations: ApplyPatchOperation
        | dict[str, object]
        | list[ApplyPatchOperation | dict[str, object]],
        *,
        patch_format: PatchFormat | Literal["v4a"] = "v4a",
    ) -> str:
        return await self._inner.apply_patch(operations, patch_format=patch_format)

    async def apply_manifest(self, *, only_ephemeral: bool = False) -> MaterializationResult:
        return await self._inner.apply_manifest(only_ephemeral=only_ephemeral)

    async def _apply_entry_batch(
        self, entries: Sequence[tuple[Path, BaseEntry]], *, base_dir: Path
    ) -> list[MaterializedFile]:
        return await self._inner._apply_entry_batch(entries, base_dir=base_dir)

    def _manifest_base_dir(self) -> Path:
        return self._inner._manifest_base_dir()
