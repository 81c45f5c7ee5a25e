"""What all operations of a workflow's session share."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from agents.sandbox.errors import SandboxError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import InvalidRequest, OperationFailed, OutcomeUnknown, SandboxLost
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.naming import activity_name
from sandbox_core.wire.operations import Operation, ResponseT
from sandbox_core.workflow.handles import add_handle, note_created
from sandbox_core.workflow.live_output import LiveOutput, checked, repeated
from sandbox_core.workflow.local_activities import LocalCommands
from sandbox_core.workflow.polling import PolledProcess
from sandbox_core.workflow.record import Restoration, SessionRecord
from sandbox_core.workflow.recovery import Recovery
from sandbox_core.workflow.usage import Usage, UsageMeter

_SessionRequestT = TypeVar("_SessionRequestT", bound=m.SessionRequest)

# Without this patch, a workflow used a deleted session again.
_DELETED = "sandbox-core-deleted"

# Without this patch, an operation after a failed first start makes another sandbox.
_DISCARDED = "sandbox-core-discarded"

# Without this patch, a lost sandbox counts as running: an operation that fails because of it raises
# no doubt, and `running` raises `SandboxLost`.
DOUBTED = "sandbox-core-doubted"


class SessionBase(BaseSandboxSession):
    """A session that is used through one handle of one workflow.

    It says whether there is still a sandbox, meters and publishes what is done with it, and leaves
    it to `Recovery` to reach the worker.
    """

    at_most_once: str | None
    """Why the last command ran at most once, without the helper; None if it ran under the helper.

    Unless it is None, a command whose worker dies raises `OutcomeUnknown`.
    """

    # A plain attribute: `agents.sandbox._mount_security` looks for it in the instance's dict.
    state: SandboxSessionState

    def __init__(
        self,
        provider: str,
        config: ActivityConfig,
        *,
        opened: m.OpenSessionResponse,
        state: SandboxSessionState,
        idempotency_key: str | None = None,
        live_output: LiveOutput | None = None,
        local_activities: bool = False,
    ) -> None:
        self.state = state
        self.deleted = False
        self.at_most_once = None
        self._workflow = _running_workflow()
        self._record = SessionRecord(self, provider, config, opened)
        self._meter = UsageMeter()
        self._recovery = Recovery(self._record, resumed=self._meter.resumed)
        self._live_output = live_output
        self._local = LocalCommands() if local_activities else None
        # Set while the sandbox was created for this session and has not been started.
        self._unused = idempotency_key
        self._discarded = False
        # The last operation failed, so a started session may not be running.
        self._doubtful = False
        self._supports_pty = opened.supports_pty
        self._processes: dict[int, PolledProcess] = {}
        # Of the sandbox, as whom commands have run: each has a helper of its own.
        self._users: set[str] = set()
        add_handle(self)
        if idempotency_key is not None:
            note_created(self)

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._record.provider

    @property
    def session_key(self) -> tuple[str, str]:
        """The provider's name and the session's id."""
        return self.provider, self._ref.session_id

    @property
    def generation(self) -> int:
        """The guarantees of the worker that opened the session; see `OpenSessionResponse`."""
        return self._record.generation

    @property
    def restorations(self) -> tuple[Restoration, ...]:
        """The sandboxes lost and restored from a snapshot since the session was opened."""
        return self._record.restorations

    @property
    def usage(self) -> Usage:
        """What the session has used in this workflow so far."""
        return self._meter.usage()

    @property
    def live_output(self) -> LiveOutput | None:
        """How what the next commands write is published while they run; None if it is not.

        Raises:
            InvalidRequest: It is set to something else.
        """
        return self._live_output

    @live_output.setter
    def live_output(self, live_output: LiveOutput | None) -> None:
        self._live_output = checked(live_output)

    def mark_deleted(self) -> None:
        """Note that this workflow deleted the sandbox, through any handle."""
        self.deleted = True
        self._meter.sandbox_deleted()

    @property
    def _ref(self) -> m.SessionRef:
        return self._record.ref

    def _is_deleted(self) -> bool:
        """Whether this workflow deleted the sandbox; each operation asks this first.

        Raises:
            InvalidRequest: Another workflow asks. A worker that stops drops its workflows, whose
                unfinished `async with` blocks Python ends at any time, in another workflow too.
        """
        if self._workflow is not _running_workflow():
            raise InvalidRequest(
                f"session {self._ref.session_id} of provider {self.provider!r} belongs to another "
                f"workflow. Pass its state instead: `await client.resume(state)`."
            )
        return self.deleted and workflow.patched(_DELETED)

    async def _call(
        self,
        operation: Operation[_SessionRequestT, ResponseT],
        request: _SessionRequestT,
        body: bytes | None = None,
    ) -> ResponseT:
        """Run `operation`, resuming the session first if the worker does not hold it.

        Raises:
            WorkerBusy: The worker that holds the session is alive but did not start the operation.
            SandboxLost: The sandbox and its workspace are gone, or this workflow deleted it.
        """
        try:
            self._check_exists(operation.name)
            response = await self._recovery.perform(operation, request, body, repeated=repeated)
        except (ActivityError, SandboxError, OperationFailed, OutcomeUnknown, SandboxLost) as error:
            self._meter.failed(request, error)
            self._doubtful = self._doubtful or self._raises_doubt(operation.name, error)
            raise
        self._meter.answered(request, body, response)
        return response

    def _check_exists(self, operation: str) -> None:
        if self._is_deleted():
            raise SandboxLost(
                f"sandbox {self._record.sandbox_id} of provider {self.provider!r} was deleted by "
                f"this workflow, so {operation} is not possible. Create a session, or resume this "
                f"one's state to get a new sandbox from its last snapshot."
            )
        if self._discarded and operation != ops.START.name and workflow.patched(_DISCARDED):
            raise SandboxLost(
                f"sandbox {self._record.sandbox_id} of provider {self.provider!r} was deleted, "
                f"because its first start failed, so {operation} is not possible. Start the "
                f"session again, which creates another sandbox, or create a session."
            )

    def _raises_doubt(self, operation: str, error: Exception) -> bool:
        """Return whether a started session may not be running, now that `operation` failed.

        Histories decide: `running` asks the worker only in case of doubt.
        """
        if isinstance(error, OperationFailed | OutcomeUnknown | SandboxLost):
            return workflow.patched(DOUBTED)
        # The others raise doubt if they are the operation's own, not those of a resume.
        failed = error if isinstance(error, ActivityError) else error.__cause__
        if isinstance(failed, ActivityError):
            return failed.activity_type == activity_name(self.provider, operation)
        return isinstance(failed, FailureError)  # Of a local activity.


def _running_workflow() -> asyncio.AbstractEventLoop | None:
    """Return what identifies the workflow whose code runs: each is an event loop of its own."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
