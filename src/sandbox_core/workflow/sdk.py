"""Keeps the Agents SDK's own code inside the workflow.

Some of the SDK's sandbox code runs in the workflow and steps out of it: the shell tool takes a
random id and the time from the process, so that a replayed conversation differs from what was sent
to the model; the patch tool reads and writes file by file. The SDK offers no place to say
otherwise, so the names that it looks up are replaced. Outside of workflows they do what they did.
"""

from __future__ import annotations

import time
import uuid
from typing import Literal

from agents.editor import ApplyPatchOperation, ApplyPatchResult
from agents.sandbox.apply_patch import PatchFormat, WorkspaceEditor
from agents.sandbox.capabilities.tools import apply_patch_tool, shell_tool
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import workflow

from sandbox_core.workflow.session import TemporalSandboxSession


def keep_inside_workflows() -> None:
    """Replace what the SDK's tools would take from outside of a workflow; repeating it is safe."""
    for module, name, replacement in (
        (shell_tool, "time", _Time),
        (shell_tool, "uuid", _Uuid),
        (apply_patch_tool, "WorkspaceEditor", _Editor),
    ):
        setattr(module, name, replacement)


class _Time:
    """What the shell tool uses of `time`."""

    @staticmethod
    def perf_counter() -> float:
        return workflow.time() if workflow.in_workflow() else time.perf_counter()


class _Uuid:
    """What the shell tool uses of `uuid`."""

    @staticmethod
    def uuid4() -> uuid.UUID:
        return workflow.uuid4() if workflow.in_workflow() else uuid.uuid4()


class _Editor(WorkspaceEditor):
    """Applies an operation in one activity where the session is a workflow's."""

    async def apply_operation(
        self,
        operation: ApplyPatchOperation,
        *,
        patch_format: PatchFormat | Literal["v4a"] = "v4a",
    ) -> ApplyPatchResult:
        session = _workflow_session(self._session)
        if session is None or patch_format != "v4a":
            return await super().apply_operation(operation, patch_format=patch_format)
        cwd = self._workspace_scope.cwd
        (output,) = await session.patch(
            [operation], user=self._user, cwd=None if cwd is None else cwd.as_posix()
        )
        return ApplyPatchResult(output=output)


def _workflow_session(session: BaseSandboxSession) -> TemporalSandboxSession | None:
    inner = session._inner if isinstance(session, SandboxSession) else session
    return inner if isinstance(inner, TemporalSandboxSession) else None
