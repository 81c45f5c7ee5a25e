"""The sandbox client that workflows use."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import TypeVar, cast, get_args, get_origin, get_type_hints

import temporalio.api.common.v1
from agents.sandbox import Manifest
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from temporalio import workflow
from temporalio.common import RetryPolicy
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
from sandbox_core.wire.option_secrets import find_secrets
from sandbox_core.workflow.convert import expect, kind_of, refuse
from sandbox_core.workflow.creation import create_session
from sandbox_core.workflow.dispatch import DEFAULT_START_TO_CLOSE_TIMEOUT
from sandbox_core.workflow.groups import in_group, same_group, session_group
from sandbox_core.workflow.live_output import LiveOutput, checked
from sandbox_core.workflow.resuming import next_epoch, resume_session
from sandbox_core.workflow.session import TemporalSandboxSession
from sandbox_core.workflow.session_wrapper import WorkflowSandboxSession, workflow_session

_T = TypeVar("_T")


class TemporalSandboxClient(BaseSandboxClient[BaseSandboxClientOptions | None]):
    """A `BaseSandboxClient` for workflows: every operation is an activity on a worker.

    The client itself holds no state and does no I/O; the real client lives in the provider on the
    worker. Pass it to ``SandboxRunConfig(client=...)``, or use it directly::

        client = temporal_sandbox_client("daytona")
        session = await client.create(options=DaytonaSandboxClientOptions())
        try:
            async with session:
                await session.exec("pytest", "-q")
        finally:
            await client.delete(session)

    Args:
        name: The provider's name, which is part of every activity type in the history.
        config: Temporal's activity options. By default the start-to-close timeout is five minutes
            and the heartbeat timeout 30 seconds.
        live_output: Publishes what commands write while they run, for those who follow the
            workflow; see `LiveOutput`. By default, nothing is published. A session's own
            `live_output` changes it for that session.
        local_activities: Whether `exec` starts commands as local activities, which is several times
            faster for short ones; see "Short commands as local activities" in the guide. Requires
            the provider on the workers that run the workflow.

    Raises:
        InvalidProviderName: `name` is not a valid provider name.
        InvalidRequest: `config` has an unknown key, or a value that is wrong; or `live_output` is
            not a `LiveOutput`.
    """

    # Without options, the provider's default applies on the worker.
    supports_default_options = True

    def __init__(
        self,
        name: str,
        config: ActivityConfig | None = None,
        *,
        live_output: LiveOutput | None = None,
        local_activities: bool = False,
    ) -> None:
        self._name = check_provider_name(name)
        if config is not None and (mistake := _mistake_in(config)):
            refuse(InvalidRequest(mistake))
        self._config = config or ActivityConfig(
            start_to_close_timeout=DEFAULT_START_TO_CLOSE_TIMEOUT
        )
        self._live_output = checked(live_output)
        expect(local_activities, (bool,), "local_activities is a bool")
        if local_activities and self._config.get("task_queue") is not None:
            refuse(
                InvalidRequest(
                    "local_activities=True and a task_queue in the config exclude each other: "
                    "local activities run in the worker of the workflow."
                )
            )
        self._local_activities = local_activities
        self.backend_id = name
        _register_with_openai_runner()

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: BaseSandboxClientOptions | None = None,
    ) -> WorkflowSandboxSession:
        """Create a sandbox and return a session for it, which is not started yet.

        Args:
            snapshot: A snapshot from another session's state to restore the workspace from, or a
                spec that says where to save it. None neither restores nor saves.
            manifest: The workspace's files, users and environment; None is an empty workspace.
            options: The backend's options; None is the provider's default.

        Raises:
            InvalidOptions: `options` belong to another backend, or contain a secret.
            InvalidRequest: An argument is of another type.
            UnknownProvider: No worker of the task queue offers the provider.
            StorageError: `snapshot` was saved, and the storage of the worker does not have it.
            AtCapacity: All workers were at `SandboxPlugin(max_sandboxes=...)` for an hour, or for
                the config's schedule-to-close timeout.
        """
        if options is not None and not isinstance(options, BaseSandboxClientOptions):
            refuse(
                InvalidOptions(
                    f"options are an instance of the options class of provider {self._name!r}, not "
                    f"{type(options).__name__}."
                )
            )
        if manifest is not None:
            expect(manifest, (Manifest,), "manifest is a Manifest")
        if snapshot is not None:
            classes = (SnapshotSpec, SnapshotBase)
            expect(snapshot, classes, "snapshot is a snapshot of another session or a SnapshotSpec")
        chosen = None if options is None else dump_options(options)
        if secrets := sorted({".".join(path) for path in find_secrets(chosen)}):
            refuse(
                InvalidOptions(
                    f"the options of provider {self._name!r} contain what looks like a secret, "
                    f"{', '.join(secrets)}: the workflow's history would record it. Keep it in the "
                    f"worker's environment: the provider reads its own credentials there, and "
                    f"WorkerEnv(name='NAME') in the manifest's environment passes a variable to "
                    f"the sandbox. What is no secret can be text in the manifest's environment."
                )
            )
        request = m.CreateSessionRequest(
            create_key=workflow.uuid4().hex,
            epoch=next_epoch(),
            manifest=None if manifest is None else dump_manifest(manifest),
            snapshot=None if snapshot is None else dump_snapshot(snapshot),
            options=chosen,
        )
        group = session_group(self._name, request.create_key)
        config = in_group(self._config, group)
        opened, state = await create_session(self._name, config, request)
        same_group(self._name, request.create_key, opened.session.session_id)
        return self._session(config, opened, state, idempotency_key=request.create_key)

    async def resume(self, state: SandboxSessionState) -> WorkflowSandboxSession:
        """Return a session for the sandbox of `state`, or for a replacement restored from snapshot.

        A workspace in use is left untouched. Several workflows and handles may use one session at
        once; see "Several users of one session" in the guide.

        Args:
            state: A session's state; read a saved one with `deserialize_session_state`.

        Raises:
            InvalidRequest: `state` lost its provider's class in serialization, or it contains host
                paths.
            UnknownProvider: No worker of the task queue offers the provider.
            SandboxLost: The sandbox is gone and has no snapshot.
            StorageError: The sandbox is gone, and the snapshot of `state` is missing.
        """
        if not isinstance(state, SandboxSessionState):
            refuse(
                InvalidRequest(
                    f"resume takes a session's state, not {type(state).__name__}: read a saved one "
                    f"with client.deserialize_session_state(...)"
                )
            )
        config = in_group(self._config, session_group(self._name, str(state.session_id)))
        opened, resumed = await resume_session(
            self._name,
            config,
            m.ResumeSessionRequest(state=dump_state(state), epoch=next_epoch(), owner=_ancestor()),
        )
        return self._session(config, opened, resumed)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete a session's sandbox, for every user of the session; deleting twice is no error.

        Raises:
            InvalidRequest: The session does not come from a `TemporalSandboxClient`.
        """
        expect(session, (BaseSandboxSession,), "delete takes a session")
        inner = workflow_session(session)
        if inner is None:
            raise InvalidRequest(
                f"delete takes a session of a TemporalSandboxClient, not {type(session).__name__}"
            )
        await inner.delete()
        return session

    def serialize_session_state(self, state: SandboxSessionState) -> dict[str, object]:
        """Return `state` as JSON, without mount credentials and host paths."""
        expect(state, (SandboxSessionState,), "a session's state is a SandboxSessionState")
        # The SDK's serializer fails on file contents that are not UTF-8.
        return super().serialize_session_state(with_encoded_contents(state))

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Return the session state, as the class that the provider registered.

        Raises:
            InvalidRequest: `payload` is not what `serialize_session_state` has returned.
            UnknownProvider: No loaded provider has states of this type.
        """
        expect(payload, (dict,), "a serialized session state is a dict")
        return load_state(cast("JsonObject", payload))

    def _session(
        self,
        config: ActivityConfig,
        opened: m.OpenSessionResponse,
        state: SandboxSessionState,
        *,
        idempotency_key: str | None = None,
    ) -> WorkflowSandboxSession:
        return WorkflowSandboxSession(
            TemporalSandboxSession(
                self._name,
                config,
                opened=opened,
                state=state,
                idempotency_key=idempotency_key,
                live_output=self._live_output,
                local_activities=self._local_activities,
            )
        )


def temporal_sandbox_client(
    name: str,
    config: ActivityConfig | None = None,
    *,
    live_output: LiveOutput | None = None,
    local_activities: bool = False,
) -> TemporalSandboxClient:
    """Return the sandbox client for provider `name`; see `TemporalSandboxClient`."""
    return TemporalSandboxClient(
        name, config, live_output=live_output, local_activities=local_activities
    )


def _ancestor() -> m.WorkflowRun | None:
    """Return the root or parent workflow of a child workflow: it owns the sandbox."""
    info = workflow.info()
    ancestor = info.root or info.parent
    if info.parent is None or ancestor is None:
        return None
    return m.WorkflowRun(workflow_id=ancestor.workflow_id, run_id=ancestor.run_id)


def _mistake_in(config: ActivityConfig) -> str | None:
    if not isinstance(config, dict):
        return f"config is Temporal's ActivityConfig, a dict, not {kind_of(config)}."
    types = get_type_hints(ActivityConfig)
    for key, value in config.items():
        if key not in types:
            return f"config has no {key!r}; it takes {', '.join(sorted(types))}"
        allowed = tuple(get_origin(each) or each for each in get_args(types[key]) or (types[key],))
        if not isinstance(value, allowed):
            names = " or ".join("None" if each is type(None) else each.__name__ for each in allowed)
            return f"config[{key!r}] is {names}, not {kind_of(value)}."
        if isinstance(value, timedelta) and value < timedelta():
            return f"config[{key!r}] is {value}, which is negative."
        if isinstance(value, RetryPolicy):
            try:
                value.apply_to_proto(temporalio.api.common.v1.RetryPolicy())
            except ValueError as error:
                return f"config[{key!r}]: {error}."
    return None


def _register_with_openai_runner() -> None:
    # OpenAIAgentsPlugin's runner accepts only instances of its own client class. Its module is
    # loaded wherever that runner is in use, so it is not imported here.
    module = sys.modules.get("temporalio.openai_agents.sandbox._temporal_sandbox_client")
    if module is not None:
        module.TemporalSandboxClient.register(TemporalSandboxClient)
