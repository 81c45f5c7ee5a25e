"""Keeps the Agents SDK's own code inside the workflow.

Some of the SDK's sandbox code runs in the workflow and steps out of it: the shell tool takes a
random id and the time from the process, so that a replayed conversation differs from what was sent
to the model; the patch tool reads and writes file by file; the snapshots of a run that names no
other place for them are on the workflow worker's disk; skills that are loaded when they are needed
are read from it. The SDK offers no place to say otherwise, so the names that it looks up are
replaced. Outside of workflows they do what they did.
"""

from __future__ import annotations

import time
import uuid
from datetime import datetime, tzinfo
from typing import Literal

from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.run_internal import run_grouping
from agents.sandbox import runtime_session_manager
from agents.sandbox.apply_patch import PatchFormat, WorkspaceEditor
from agents.sandbox.capabilities import LocalDirLazySkillSource, SkillMetadata, Skills
from agents.sandbox.capabilities.tools import apply_patch_tool, shell_tool
from agents.sandbox.manifest import Manifest
from agents.sandbox.memory import rollouts, storage
from agents.sandbox.memory.manager import SandboxMemoryGenerationManager
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.snapshot import RemoteSnapshotSpec, SnapshotSpec
from agents.sandbox.snapshot_defaults import resolve_default_local_snapshot_spec
from agents.sandbox.types import User
from temporalio import workflow

from sandbox_core.storage import SNAPSHOT_DEPENDENCY
from sandbox_core.workflow.lending import memory_run_config, workflow_session

_sdk_skill_metadata = Skills._skill_metadata
_sdk_load_skill = LocalDirLazySkillSource.load_skill


def keep_inside_workflows() -> None:
    """Replace what the SDK's tools would take from outside of a workflow; repeating it is safe."""
    for owner, name, replacement in (
        (shell_tool, "time", _Time),
        (shell_tool, "uuid", _Uuid),
        (apply_patch_tool, "WorkspaceEditor", _Editor),
        (run_grouping, "uuid4", _uuid4),
        (SandboxMemoryGenerationManager, "_memory_run_config", memory_run_config),
        (rollouts, "datetime", _DateTime),
        (storage, "datetime", _DateTime),
        (Skills, "_skill_metadata", _skill_metadata),
        (LocalDirLazySkillSource, "load_skill", _load_skill),
        (runtime_session_manager, "resolve_default_local_snapshot_spec", _default_snapshot),
    ):
        getattr(owner, name)  # An SDK that has no such name must not get past this unnoticed.
        setattr(owner, name, replacement)


def _default_snapshot() -> SnapshotSpec:
    # The SDK's own default is a directory of the host that asks, which it makes at once.
    if workflow.in_workflow():
        return RemoteSnapshotSpec(client_dependency_key=SNAPSHOT_DEPENDENCY)
    return resolve_default_local_snapshot_spec()


class _Time:
    """What the shell tool uses of `time`."""

    @staticmethod
    def perf_counter() -> float:
        return workflow.time() if workflow.in_workflow() else time.perf_counter()


def _uuid4() -> uuid.UUID:
    return workflow.uuid4() if workflow.in_workflow() else uuid.uuid4()


class _DateTime:
    """What the files of a run's memory take of `datetime`."""

    @staticmethod
    def now(tz: tzinfo | None = None) -> datetime:
        return workflow.now().astimezone(tz) if workflow.in_workflow() else datetime.now(tz)


class _Uuid:
    """What the shell tool uses of `uuid`."""

    @staticmethod
    def uuid4() -> uuid.UUID:
        return _uuid4()


class _Editor(WorkspaceEditor):
    """Applies an operation in one activity where the session is a workflow's."""

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


async def _skill_metadata(skills: Skills, manifest: Manifest) -> list[SkillMetadata]:
    """Let the worker list a folder, and put the answer where the SDK keeps its own."""
    session = None if skills.session is None else workflow_session(skills.session)
    source = skills.lazy_from
    if (
        session is not None
        and isinstance(source, LocalDirLazySkillSource)
        # A class of the application's own may list something else.
        and type(source).list_skill_metadata is LocalDirLazySkillSource.list_skill_metadata
    ):
        key = skills._metadata_cache_key(manifest)
        if skills._skills_metadata is None or skills._skills_metadata_cache_key != key:
            skills._skills_metadata = await session.list_skills(source.source, skills.skills_path)
            skills._skills_metadata_cache_key = key
    return await _sdk_skill_metadata(skills, manifest)


async def _load_skill(
    source: LocalDirLazySkillSource,
    *,
    skill_name: str,
    session: BaseSandboxSession,
    skills_path: str,
    user: str | User | None = None,
) -> dict[str, str]:
    """Let the worker load a skill of a workflow's session."""
    inner = workflow_session(session)
    if inner is None:
        return await _sdk_load_skill(
            source, skill_name=skill_name, session=session, skills_path=skills_path, user=user
        )
    return await inner.load_skill(source.source, skill_name, skills_path, user=user)
