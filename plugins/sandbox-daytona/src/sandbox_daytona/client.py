"""The SDK's Daytona client, with labels on what it makes, and errors that say what happened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agents.extensions.sandbox.daytona import (
    DaytonaSandboxClient,
    DaytonaSandboxClientOptions,
    DaytonaSandboxResources,
    DaytonaSandboxSession,
    DaytonaSandboxSessionState,
)
from agents.sandbox import Manifest
from agents.sandbox.errors import ExecTransportError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.manager import Instrumentation
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from agents.sandbox.types import ExecResult

from sandbox_core.errors import AtCapacity
from sandbox_core.providers import LabellingClient, SandboxStopped, retry_after_of

if TYPE_CHECKING:
    from daytona import (
        AsyncSandbox,
        CreateSandboxFromImageParams,
        CreateSandboxFromSnapshotParams,
    )


# What all sandboxes of an organization use together, in the words of an answer with status 403.
# "CPU request 8 exceeds maximum allowed per sandbox" is another: waiting does not help there.
_NO_ROOM: Final = re.compile(r"Total \w+ limit exceeded")

# How Daytona ends its answer to a request for the inside of a sandbox that does not run.
_STOPPED: Final = "Is the Sandbox started?"


async def find_sandbox(client: DaytonaSandboxClient, sandbox_id: str) -> AsyncSandbox | None:
    """Return the sandbox; None if Daytona does not have it, or is deleting it."""
    from daytona import DaytonaNotFoundError, SandboxState

    try:
        sandbox = await client._daytona.get(sandbox_id)
    except DaytonaNotFoundError:
        return None
    gone = sandbox.state in (SandboxState.DESTROYED, SandboxState.DESTROYING)
    # Daytona accepts a delete before it carries it out.
    return None if gone or sandbox.desired_state == "destroyed" else sandbox


async def delete_sandbox(client: DaytonaSandboxClient, sandbox_id: str) -> None:
    """Delete the sandbox, if it exists."""
    sandbox = await find_sandbox(client, sandbox_id)
    if sandbox is not None:
        await sandbox.delete()


class StoppableDaytonaSandboxSession(DaytonaSandboxSession):
    """The SDK's session, but it says that Daytona has stopped its sandbox, such as an idle one."""

    async def _exec_internal(
        self, *command: str | Path, timeout: float | None = None
    ) -> ExecResult:
        # The SDK's other operations begin with a command too, which checks their path.
        try:
            return await super()._exec_internal(*command, timeout=timeout)
        except ExecTransportError as error:
            if _STOPPED not in str(error):
                raise
            raise SandboxStopped(command=command, message=str(error), cause=error) from error


class LabellingDaytonaSandboxClient(LabellingClient, DaytonaSandboxClient):
    """The SDK's client, optionally with labels for its sandboxes."""

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: DaytonaSandboxClientOptions,
    ) -> SandboxSession:
        """Create a sandbox.

        Raises:
            AtCapacity: The organization's CPUs, memory or disk are in use.
            DaytonaError: Daytona did not create it.
        """
        from daytona import DaytonaError

        try:
            return await super().create(snapshot=snapshot, manifest=manifest, options=options)
        except DaytonaError as error:
            if not _NO_ROOM.search(error.message):
                raise
            raise AtCapacity(
                f"provider 'daytona' has no room for another sandbox: {error}",
                retry_after=retry_after_of(error),
            ) from error

    def _wrap_session(
        self, inner: BaseSandboxSession, *, instrumentation: Instrumentation | None = None
    ) -> SandboxSession:
        if isinstance(inner, DaytonaSandboxSession):
            taken = StoppableDaytonaSandboxSession.from_state(inner.state, sandbox=inner._sandbox)
            vars(taken).update(vars(inner))
            inner = taken
        return super()._wrap_session(inner, instrumentation=instrumentation)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete the session's sandbox, or pause it if its options say so.

        Raises:
            DaytonaError: Daytona did not delete it.
        """
        deleted = await super().delete(session)
        # The SDK's client ignores errors: the sandbox could remain unnoticed.
        state = session.state
        if isinstance(state, DaytonaSandboxSessionState) and not state.pause_on_exit:
            await delete_sandbox(self, state.sandbox_id)
        return deleted

    async def _build_create_params(
        self,
        *,
        sandbox_snapshot_name: str | None,
        image: str | None,
        env_vars: dict[str, str] | None,
        manifest: Manifest,
        name: str | None = None,
        resources: DaytonaSandboxResources | None = None,
        auto_stop_interval: int | None = None,
    ) -> CreateSandboxFromSnapshotParams | CreateSandboxFromImageParams:
        # Both `create` and, for a lost sandbox, `resume` create sandboxes with these.
        params: CreateSandboxFromSnapshotParams | CreateSandboxFromImageParams
        params = await super()._build_create_params(
            sandbox_snapshot_name=sandbox_snapshot_name,
            image=image,
            env_vars=env_vars,
            manifest=manifest,
            name=name,
            resources=resources,
            auto_stop_interval=auto_stop_interval,
        )
        params.labels = {**(params.labels or {}), **self._labels}
        return params
