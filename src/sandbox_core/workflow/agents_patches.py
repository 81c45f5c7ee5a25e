"""Makes the Agents SDK's sandbox code deterministic in workflows, for our own sessions.

Some of it has side effects in the workflow: the shell tool takes random ids and the time from the
process, so a replayed conversation would differ from the one sent to the model; the patch tool
reads and writes files one by one; default snapshots and lazily loaded skills live on the workflow
worker's disk. The SDK has no extension points for these, so `PATCHES` replaces the names that it
looks up.

A replacement applies to the whole process, including workflows that use other clients. Each one
therefore first checks whose session or client it is called for, and falls back to the SDK's
behaviour unless it is ours.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from types import ModuleType
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import agents.run
from agents import Agent, RunState
from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.memory import Session
from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.run_internal import run_grouping
from agents.sandbox.apply_patch import PatchFormat, WorkspaceEditor
from agents.sandbox.capabilities import LocalDirLazySkillSource, SkillMetadata, Skills
from agents.sandbox.capabilities.tools import apply_patch_tool, shell_tool
from agents.sandbox.manifest import Manifest
from agents.sandbox.memory import rollouts, storage
from agents.sandbox.memory.manager import SandboxMemoryGenerationManager
from agents.sandbox.runtime import SandboxRuntime
from agents.sandbox.runtime_session_manager import SandboxRuntimeSessionManager
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec, RemoteSnapshotSpec, SnapshotBase, SnapshotSpec
from agents.sandbox.types import User
from temporalio import workflow

from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.workflow.client import TemporalSandboxClient
from sandbox_core.workflow.lending import live_session, memory_client
from sandbox_core.workflow.session_wrapper import workflow_session

_OwnerT = TypeVar("_OwnerT")
_ResultT = TypeVar("_ResultT")
_P = ParamSpec("_P")

_Shell = shell_tool.ExecCommandTool | shell_tool.WriteStdinTool

_of_ours: ContextVar[bool] = ContextVar("sandbox_core_session_of_ours", default=False)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A replaced name of the SDK, its replacement, and the reason."""

    owner: ModuleType | type
    name: str
    replacement: object
    reason: str


def keep_inside_workflows() -> None:
    """Apply `PATCHES`; calling it again is safe.

    Raises:
        AttributeError: The installed SDK lacks one of the names.
    """
    for patch in PATCHES:
        getattr(patch.owner, patch.name)
        setattr(patch.owner, patch.name, patch.replacement)


def _ours(
    method: Callable[Concatenate[_OwnerT, _P], Awaitable[_ResultT]],
    session_of: Callable[[_OwnerT], BaseSandboxSession | None],
) -> Callable[Concatenate[_OwnerT, _P], Awaitable[_ResultT]]:
    """Have the clock and the ids be the workflow's while `method` works for a session of ours."""

    @functools.wraps(method)
    async def wrapper(owner: _OwnerT, /, *args: _P.args, **kwargs: _P.kwargs) -> _ResultT:
        ours = workflow_session(session_of(owner)) is not None
        token = _of_ours.set(ours and workflow.in_workflow())
        try:
            return await method(owner, *args, **kwargs)
        finally:
            _of_ours.reset(token)

    return wrapper


class _Time:
    """The part of `time` that the shell tool uses."""

    @staticmethod
    def perf_counter() -> float:
        return workflow.time() if _of_ours.get() else time.perf_counter()


def _uuid4() -> uuid.UUID:
    return workflow.uuid4() if _of_ours.get() else uuid.uuid4()


class _Uuid:
    """The part of `uuid` that the shell tool uses."""

    @staticmethod
    def uuid4() -> uuid.UUID:
        return _uuid4()


class _DateTime:
    """The part of `datetime` that memory files use."""

    @staticmethod
    def now(tz: tzinfo | None = None) -> datetime:
        return workflow.now().astimezone(tz) if _of_ours.get() else datetime.now(tz)


_sdk_rollout_id = agents.run._sandbox_memory_rollout_id


def _rollout_id(
    *, run_config: RunConfig, conversation_id: str | None, session: Session | None
) -> str | None:
    token = _of_ours.set(_runs_with_ours(run_config.sandbox) and workflow.in_workflow())
    try:
        return _sdk_rollout_id(
            run_config=run_config, conversation_id=conversation_id, session=session
        )
    finally:
        _of_ours.reset(token)


def _runs_with_ours(sandbox: SandboxRunConfig | None) -> bool:
    if sandbox is None:
        return False
    if sandbox.session is not None:
        return workflow_session(sandbox.session) is not None
    return isinstance(sandbox.client, TemporalSandboxClient)


_sdk_manager_init = SandboxRuntimeSessionManager.__init__


def _manager_init(
    manager: SandboxRuntimeSessionManager[Any],
    *,
    starting_agent: Agent[Any],
    sandbox_config: SandboxRunConfig | None,
    run_state: RunState[Any] | None,
) -> None:
    """Make a run with `with_session(session)` use the live session."""
    session = None if sandbox_config is None else live_session(sandbox_config.client)
    if sandbox_config is not None and session is not None:
        sandbox_config = replace(sandbox_config, client=None, session=session)
    _sdk_manager_init(
        manager, starting_agent=starting_agent, sandbox_config=sandbox_config, run_state=run_state
    )


_sdk_snapshot_spec = SandboxRuntimeSessionManager._resolve_snapshot_spec


class _SnapshotSpec:
    """The static method that chooses a run's snapshot, made aware of the run's client."""

    def __get__(
        self, manager: SandboxRuntimeSessionManager[Any] | None, owner: type
    ) -> Callable[[SnapshotSpec | SnapshotBase | None], SnapshotSpec | SnapshotBase]:
        if manager is None or not _runs_with_ours(manager._sandbox_config):
            return _sdk_snapshot_spec
        return _snapshot_in_the_store


def _snapshot_in_the_store(
    snapshot: SnapshotSpec | SnapshotBase | None,
) -> SnapshotSpec | SnapshotBase:
    return snapshot or RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)


class _Editor(WorkspaceEditor):
    """Applies an operation of a workflow's session in one activity."""

    async def apply_operation(
        self,
        operation: ApplyPatchOperation,
        *,
        patch_format: PatchFormat | Literal["v4a"] = "v4a",
    ) -> ApplyPatchResult:
        session = workflow_session(self._session)
        if session is None or patch_format != "v4a":
            return await super().apply_operation(operation, patch_format=patch_format)
        cwd = self._workspace_scope.cwd
        (output,) = await session.patch(
            [operation], user=self._user, cwd=None if cwd is None else cwd.as_posix()
        )
        return ApplyPatchResult(output=output)


_sdk_memory_run_config = SandboxMemoryGenerationManager._memory_run_config


def _memory_run_config(manager: SandboxMemoryGenerationManager) -> RunConfig:
    session = workflow_session(manager._session)
    if session is None or not workflow.in_workflow():
        return _sdk_memory_run_config(manager)
    return RunConfig(
        sandbox=SandboxRunConfig(client=memory_client(session), snapshot=NoopSnapshotSpec())
    )


_sdk_skill_metadata = Skills._skill_metadata


async def _skill_metadata(skills: Skills, manifest: Manifest) -> list[SkillMetadata]:
    """Have the worker list a directory, and store the answer in the SDK's cache."""
    session = workflow_session(skills.session)
    source = skills.lazy_from
    if (
        session is not None
        and isinstance(source, LocalDirLazySkillSource)
        # An application's subclass may list something else.
        and type(source).list_skill_metadata is LocalDirLazySkillSource.list_skill_metadata
    ):
        key = skills._metadata_cache_key(manifest)
        if skills._skills_metadata is None or skills._skills_metadata_cache_key != key:
            skills._skills_metadata = await session.list_skills(source.source, skills.skills_path)
            skills._skills_metadata_cache_key = key
    return await _sdk_skill_metadata(skills, manifest)


_sdk_load_skill = LocalDirLazySkillSource.load_skill


async def _load_skill(
    source: LocalDirLazySkillSource,
    *,
    skill_name: str,
    session: BaseSandboxSession,
    skills_path: str,
    user: str | User | None = None,
) -> dict[str, str]:
    """Have the worker load a skill into a workflow's session."""
    inner = workflow_session(session)
    if inner is None:
        return await _sdk_load_skill(
            source, skill_name=skill_name, session=session, skills_path=skills_path, user=user
        )
    return await inner.load_skill(source.source, skill_name, skills_path, user=user)


def _of_tool(tool: _Shell) -> BaseSandboxSession:
    return tool.session


def _of_run(runtime: SandboxRuntime[Any]) -> BaseSandboxSession | None:
    return runtime.current_session


def _of_memories(manager: SandboxMemoryGenerationManager) -> BaseSandboxSession:
    return manager._session


_SAID_TO_THE_MODEL = "a replayed conversation must equal the one sent to the model"
_WRITTEN_TO_A_FILE = "a replayed write must have the same content"
_OPENS_THE_SCOPE = "marks our sessions for the replacements of time and ids"

PATCHES = (
    Patch(owner=shell_tool, name="time", replacement=_Time, reason=_SAID_TO_THE_MODEL),
    Patch(owner=shell_tool, name="uuid", replacement=_Uuid, reason=_SAID_TO_THE_MODEL),
    Patch(
        owner=shell_tool.ExecCommandTool,
        name="_invoke",
        replacement=_ours(shell_tool.ExecCommandTool._invoke, _of_tool),
        reason=_OPENS_THE_SCOPE,
    ),
    Patch(
        owner=shell_tool.ExecCommandTool,
        name="run",
        replacement=_ours(shell_tool.ExecCommandTool.run, _of_tool),
        reason=_OPENS_THE_SCOPE,
    ),
    Patch(
        owner=shell_tool.WriteStdinTool,
        name="run",
        replacement=_ours(shell_tool.WriteStdinTool.run, _of_tool),
        reason=_OPENS_THE_SCOPE,
    ),
    Patch(owner=rollouts, name="datetime", replacement=_DateTime, reason=_WRITTEN_TO_A_FILE),
    Patch(owner=storage, name="datetime", replacement=_DateTime, reason=_WRITTEN_TO_A_FILE),
    Patch(
        owner=SandboxRuntime,
        name="enqueue_memory_result",
        replacement=_ours(SandboxRuntime.enqueue_memory_result, _of_run),
        reason=_OPENS_THE_SCOPE,
    ),
    Patch(
        owner=SandboxRuntime,
        name="enqueue_memory_payload",
        replacement=_ours(SandboxRuntime.enqueue_memory_payload, _of_run),
        reason=_OPENS_THE_SCOPE,
    ),
    Patch(
        owner=SandboxMemoryGenerationManager,
        name="flush",
        replacement=_ours(SandboxMemoryGenerationManager.flush, _of_memories),
        reason=_OPENS_THE_SCOPE,
    ),
    Patch(
        owner=SandboxMemoryGenerationManager,
        name="_memory_run_config",
        replacement=_memory_run_config,
        reason="the agents that write memories run in the live session, which the OpenAI plugin's "
        "runner refuses",
    ),
    Patch(
        owner=run_grouping,
        name="uuid4",
        replacement=_uuid4,
        reason="the id of a run that has no other is the name of its memory file",
    ),
    Patch(
        owner=agents.run,
        name="_sandbox_memory_rollout_id",
        replacement=_rollout_id,
        reason=_OPENS_THE_SCOPE,
    ),
    Patch(
        owner=apply_patch_tool,
        name="WorkspaceEditor",
        replacement=_Editor,
        reason="a patch is one activity, not several a file",
    ),
    Patch(
        owner=Skills,
        name="_skill_metadata",
        replacement=_skill_metadata,
        reason="the folder of skills is on the worker's disk",
    ),
    Patch(
        owner=LocalDirLazySkillSource,
        name="load_skill",
        replacement=_load_skill,
        reason="the folder of skills is on the worker's disk",
    ),
    Patch(
        owner=SandboxRuntimeSessionManager,
        name="__init__",
        replacement=_manager_init,
        reason="the OpenAI plugin's runner takes a client and no session",
    ),
    Patch(
        owner=SandboxRuntimeSessionManager,
        name="_resolve_snapshot_spec",
        replacement=_SnapshotSpec(),
        reason="the SDK's default is a directory of the workflow's host, which it makes at once",
    ),
)
"""Every name of the Agents SDK that is replaced where workflows run."""
