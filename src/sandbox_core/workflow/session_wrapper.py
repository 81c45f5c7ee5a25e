"""The SDK's instrumented wrapper around a workflow's session."""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from agents import tracing
from agents.editor import ApplyPatchOperation
from agents.run_config import SandboxArchiveLimits
from agents.sandbox.apply_patch import PatchFormat
from agents.sandbox.entries import BaseEntry
from agents.sandbox.errors import OpName
from agents.sandbox.materialization import MaterializationResult, MaterializedFile
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User
from agents.sandbox.workspace_paths import WorkspacePathPolicy
from temporalio import workflow

from sandbox_core.errors import SandboxLost
from sandbox_core.workflow.live_output import LiveOutput
from sandbox_core.workflow.record import Restoration
from sandbox_core.workflow.session import TemporalSandboxSession
from sandbox_core.workflow.usage import Usage

_T = TypeVar("_T")

# Without this patch, closing a session whose sandbox is gone raises.
_CLOSED_LOST = "sandbox-core-closed-lost"


def workflow_session(session: BaseSandboxSession | None) -> TemporalSandboxSession | None:
    """Return the workflow's session that `session` is or wraps, if it is one."""
    inner = session._inner if isinstance(session, SandboxSession) else session
    return inner if isinstance(inner, TemporalSandboxSession) else None


class WorkflowSandboxSession(SandboxSession):
    """The SDK's instrumented wrapper, delegating composite methods to the inner session.

    `SandboxSession` composes these of exec, read and write in the caller's process; here each is
    one operation.
    """

    _inner: TemporalSandboxSession

    @property
    def restorations(self) -> tuple[Restoration, ...]:
        """The sandboxes lost and restored from a snapshot since the session was opened."""
        return self._inner.restorations

    @property
    def usage(self) -> Usage:
        """What the session has used in this workflow so far: seconds, commands, bytes."""
        return self._inner.usage

    @property
    def at_most_once(self) -> str | None:
        """Why the last command ran at most once, without the helper; None if it ran under it."""
        return self._inner.at_most_once

    @property
    def live_output(self) -> LiveOutput | None:
        """How what the next commands write is published while they run; None if it is not.

        Raises:
            InvalidRequest: It is set to something else.
        """
        return self._inner.live_output

    @live_output.setter
    def live_output(self, live_output: LiveOutput | None) -> None:
        self._inner.live_output = live_output

    async def pty_resize(self, session_id: int, *, rows: int, columns: int) -> None:
        """Resize the terminal of a process, in characters.

        Raises:
            PtySessionNotFoundError: There is no such process, or it has ended.
        """
        await self._inner.pty_resize(session_id, rows=rows, columns=columns)

    async def aclose(self) -> None:
        """Save the workspace and release the sandbox, at the end of ``async with``.

        If the sandbox is gone, that is only logged, so as not to hide the session's result or the
        error that ended it.
        """
        try:
            await super().aclose()
        except SandboxLost as lost:
            _close_lost(lost)

    async def _annotate(
        self, *, run: Callable[[], Coroutine[object, object, _T]], **rest: object
    ) -> _T:
        # Asking for the current trace would create the SDK's default provider, with an HTTP client.
        # OpenAIAgentsPlugin sets one made for workflows.
        if tracing.setup.GLOBAL_TRACE_PROVIDER is None:
            return await run()
        if not self._instrumentation.sinks and tracing.get_current_trace() is None:
            return await run()  # Nobody would see the events.
        return await super()._annotate(run=run, **rest)  # type: ignore[arg-type]  # passed through

    def _trace_span_data(self, *, op: OpName) -> dict[str, object]:
        # The SDK derives the backend's name from the module of the session's class.
        return {**super()._trace_span_data(op=op), "sandbox.backend": self._inner.provider}

    def _workspace_path_policy(self) -> WorkspacePathPolicy:
        return self._inner._workspace_path_policy()

    # The SDK's versions of these take any arguments, and its errors for wrong ones name internals.

    async def exec(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | list[str] = True,
        user: str | User | None = None,
    ) -> ExecResult:
        return await super().exec(*command, timeout=timeout, shell=shell, user=user)

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        await super().write(path, data, user=user)

    async def resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        return await super().resolve_exposed_port(port)

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        await super().hydrate_workspace(data)

    async def read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        return await self._inner.read_bounded(path, max_bytes=max_bytes)

    async def _write_new_file(
        self, path: Path, data: io.IOBase, *, user: str | User | None = None
    ) -> None:
        await self._inner._write_new_file(path, data, user=user)

    async def mv(
        self,
        source: Path | str,
        destination: Path | str,
        *,
        user: str | User | None = None,
    ) -> None:
        await self._inner.mv(source, destination, user=user)

    async def same_file(
        self,
        left: Path | str,
        right: Path | str,
        *,
        follow_symlinks: bool = True,
        user: str | User | None = None,
    ) -> bool:
        return await self._inner.same_file(left, right, follow_symlinks=follow_symlinks, user=user)

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


def _close_lost(lost: SandboxLost) -> None:
    """Allow closing a session whose sandbox is gone.

    Raises:
        SandboxLost: The workflow was started when this was still an error.
    """
    if not workflow.patched(_CLOSED_LOST):
        raise lost
    workflow.logger.warning("a session was closed without saving its workspace: %s", lost)
