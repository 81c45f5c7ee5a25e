"""The SDK's Cloudflare session, but it notices if its container was replaced.

A bridge starts a container for any id. So after a session's container was deleted, slept or
crashed, the next command would succeed in an empty workspace. A file outside the workspace, created
with the sandbox, identifies the original container.
"""

from __future__ import annotations

import io
from pathlib import Path

from agents.extensions.sandbox.cloudflare import CloudflareSandboxSession
from agents.sandbox.errors import ExecTransportError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.types import ExecResult

_MARK = '"/var/tmp/.sandbox-$0"'
_GONE = 253
_GUARD = f'[ -e {_MARK} ] || {{ echo "sandbox $0 is gone" >&2; exit {_GONE}; }}; exec "$@"'


class ContainerGone(ExecTransportError):
    """The session's container is gone, and another one was started in its place."""


class GuardedCloudflareSandboxSession(CloudflareSandboxSession):
    """The SDK's session, but commands run only in the session's original container."""

    _restoring = False

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Unpack an archive into the workspace."""
        if self._restoring:  # Mounts are already removed.
            await self._hydrate_workspace_via_http(data)
        else:
            await super().hydrate_workspace(data)

    async def _restore_snapshot_into_workspace_on_resume(self) -> None:
        # The SDK's does not call `hydrate_workspace`, in which a worker restores links.
        self._restoring = True
        try:
            await BaseSandboxSession._restore_snapshot_into_workspace_on_resume(self)
        finally:
            self._restoring = False

    async def mark(self) -> None:
        """Mark the current container as the session's.

        Raises:
            ExecTransportError: The container did not start, or has no ``/var/tmp``.
        """
        script = f": > {_MARK}"
        result = await super()._exec_internal("sh", "-c", script, self.state.sandbox_id)
        if not result.ok():
            raise ExecTransportError(command=(script,), cause=OSError(result.stderr.decode()))

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        sandbox_id = self.state.sandbox_id
        result = await super()._exec_internal(
            "sh", "-c", _GUARD, sandbox_id, *command, timeout=timeout
        )
        gone = f"sandbox {sandbox_id} is gone"
        if result.exit_code == _GONE and result.stderr.decode(errors="replace").strip() == gone:
            raise ContainerGone(
                command=tuple(str(part) for part in command),
                message=f"the container of {gone}; another was started in its place",
                retryable=False,
            )
        return result
