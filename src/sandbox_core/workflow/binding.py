"""Where a session is: which worker holds it, at which epoch, and how it is opened again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from temporalio import exceptions, workflow
from temporalio.exceptions import ActivityError, TimeoutType
from temporalio.workflow import ActivityConfig

from sandbox_core.errors import SandboxLost, SessionNotOpen
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import apply_delta, dump_state, load_state
from sandbox_core.wire.naming import host_of
from sandbox_core.wire.operations import Operation, ResponseT
from sandbox_core.workflow.dispatch import dispatch

_SessionRequestT = TypeVar("_SessionRequestT", bound=m.SessionRequest)

DEFAULT_SCHEDULE_TO_START_TIMEOUT = timedelta(seconds=60)
"""How long an operation waits at a worker's own queue for that worker, or one in its place."""

# Without this patch in its history, a workflow waits for the worker's own queue even if another
# worker on the host could take the session over.
_TAKE_OVER = "sandbox-core-take-over"

# How often an operation may find that the worker it landed on does not hold the session. One is
# the ordinary case. More happen when several workers share the queue and none is bound to it, and
# when they die one after the other, each right after it has resumed the session.
_MAX_RESUMES = 20


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """A sandbox was lost, and its workspace restored from its last snapshot in another one.

    What has happened in the workspace since that snapshot is gone. The ids are the backend's, if
    the provider can tell.
    """

    lost_sandbox_id: str | None
    sandbox_id: str | None


class BoundSession(BaseSandboxSession):
    """The part of a workflow's session that knows where the real one is.

    It keeps what must survive any worker: the session state, whether the workspace has been
    started, and the epoch. A worker that does not hold the session answers `SessionNotOpen`. Then

    - a session whose sandbox lives on a worker's host is resumed by a worker there if its own is
      gone, and else bound: from then on it asks at its own worker's queue;
    - any other session is resumed where the operation has landed.

    If nobody polls the worker's own queue, the session is resumed through the shared one.
    """

    restorations: tuple[Restoration, ...]
    """What was lost since the session was opened, and replaced from a snapshot."""

    # A plain attribute: `agents.sandbox._mount_security` looks for it in the instance's dict.
    state: SandboxSessionState

    def __init__(
        self,
        provider: str,
        config: ActivityConfig,
        *,
        opened: m.OpenSessionResponse,
        state: SandboxSessionState,
        create_key: str | None = None,
    ) -> None:
        self.state = state
        self.restorations: tuple[Restoration, ...] = ()
        self._provider = provider
        self._config = config
        self._ref = opened.session
        self._supports_pty = opened.supports_pty
        self._sandbox_id = opened.sandbox_id
        self._host_bound = opened.host_bound
        # The own queue of the worker that holds the session, and whether to ask there and not
        # at the shared queue, where Temporal hands a task to this worker while nothing is amiss.
        self._worker_queue = opened.worker_queue
        self._bound = False
        self._started = opened.started
        # Of a sandbox that was made for this session, as long as nothing has happened in it.
        self._unused = create_key
        self._discarded = False
        self._settings = m.SessionSettings()
        # What the worker was last told; a difference travels with the next request.
        self._told_state = state
        self._told_settings = m.SessionSettings()
        self._resuming: asyncio.Task[None] | None = None

    # --- The wire -------------------------------------------------------------------------------

    async def _call(
        self,
        operation: Operation[_SessionRequestT, ResponseT],
        request: _SessionRequestT,
        body: bytes | None = None,
    ) -> ResponseT:
        """Run `operation`, resuming the session on a worker that does not hold it."""
        for _ in range(_MAX_RESUMES):
            current, state = self._current(request), self.state
            try:
                response = await dispatch(
                    self._provider, self._activity_config(), operation, current, body
                )
            except SessionNotOpen:
                if self._is_movable() or workflow.patched(_TAKE_OVER):
                    await self._resume(stale=current.session)
                else:
                    self._bound = True
            except ActivityError as error:
                if not (self._bound and nobody_polls(error)):
                    raise
                await self._resume(stale=current.session, anywhere=True)
            else:
                self._mark_told(current, state)
                if isinstance(request, m.PtyExecStartRequest) and request.tty:
                    self._bound = self._worker_queue is not None  # Its terminal is of that worker.
                return response
        return await dispatch(
            self._provider, self._activity_config(), operation, self._current(request), body
        )

    def _is_movable(self) -> bool:
        """Tell whether any worker may resume the session, or it is asked for at its own queue."""
        return self._bound or not self._host_bound or self._worker_queue is None

    def _activity_config(self, config: ActivityConfig | None = None) -> ActivityConfig:
        config = config or self._config
        if not self._bound or self._worker_queue is None:
            return config
        bound = config.copy()
        bound["task_queue"] = self._worker_queue
        bound.setdefault("schedule_to_start_timeout", DEFAULT_SCHEDULE_TO_START_TIMEOUT)
        return bound

    def _current(self, request: _SessionRequestT) -> _SessionRequestT:
        state, settings = self.state, self._settings
        return request.model_copy(
            update={
                "session": self._ref,
                "state": None if state is self._told_state else dump_state(state),
                "settings": None if settings == self._told_settings else settings,
            }
        )

    def _mark_told(self, request: m.SessionRequest, state: SandboxSessionState) -> None:
        if request.session != self._ref:
            return  # The session was resumed meanwhile, with all that there is to tell.
        if request.settings is not None:
            self._told_settings = request.settings
        if request.state is not None:
            self._told_state = state

    async def _resume(self, *, stale: m.SessionRef, anywhere: bool = False) -> None:
        """Open the session again, once for all the operations that find it stale.

        An operation that is cancelled only stops waiting. The others need the session still, and
        what is opened for it must be known, or nobody would delete it.
        """
        if self._ref != stale:
            return  # Another operation has had it resumed meanwhile.
        if self._resuming is None or self._resuming.done():
            self._resuming = asyncio.create_task(self._open_again(anywhere=anywhere))
        await asyncio.shield(self._resuming)

    async def _resumed(self) -> None:
        """Return when no resume is under way."""
        await workflow.wait_condition(lambda: self._resuming is None or self._resuming.done())

    async def _open_again(self, *, anywhere: bool) -> None:
        """Resume at the session's own worker's queue if it is bound, else at any worker.

        One whose sandbox lives on a host is bound by this if its worker lives: another one took
        the operation, and the session's own is asked next.
        """
        settings = self._settings
        held_by = None if anywhere or self._is_movable() else self._worker_queue
        request = m.ResumeSessionRequest(
            state=dump_state(self.state),
            epoch=next_epoch(self._ref.epoch),
            started=self._started,
            sandbox_id=self._sandbox_id,
            settings=settings,
            held_by=held_by,
        )
        if anywhere:
            opened, state = await self._resume_elsewhere(request)
        else:
            try:
                opened, state = await resume_session(
                    self._provider, self._activity_config(), request
                )
            except SessionNotOpen:
                if held_by is None:
                    raise
                self._bound = True
                return
            except ActivityError as error:
                if not nobody_polls(error):
                    raise
                opened, state = await self._resume_elsewhere(request)
        if opened.restored:
            self.restorations += (
                Restoration(lost_sandbox_id=self._sandbox_id, sandbox_id=opened.sandbox_id),
            )
            workflow.logger.warning(
                "sandbox %s of provider %s was lost; its workspace was restored from its last "
                "snapshot in sandbox %s",
                self._sandbox_id,
                self._provider,
                opened.sandbox_id,
            )
        self._ref = opened.session
        self._started = self._started or opened.started
        self._sandbox_id = opened.sandbox_id
        self._worker_queue = opened.worker_queue
        self._bound = self._bound and self._host_bound
        self._told_settings = settings
        self.state = self._told_state = state

    async def _resume_elsewhere(
        self, request: m.ResumeSessionRequest
    ) -> tuple[m.OpenSessionResponse, SandboxSessionState]:
        """Open the session at any worker, because nobody polls the queue of its own."""
        try:
            return await resume_session(self._provider, self._config, request)
        except SandboxLost as lost:
            if not self._host_bound or self._worker_queue is None:
                raise
            # The worker that was asked names its own host, where the sandbox has never been.
            raise SandboxLost(
                f"sandbox {self._sandbox_id} of provider {self._provider!r} is on host "
                f"{host_of(self._worker_queue)}, where no worker has answered, and its workspace "
                f"was never saved to a snapshot. Restart a worker there in time, or save with "
                f"session.stop() what must outlive a host."
            ) from lost

    async def _change_state(
        self, operation: Operation[_SessionRequestT, m.StateResponse], request: _SessionRequestT
    ) -> None:
        changed = await self._call(operation, request)
        if changed.sandbox_id is not None:
            self._sandbox_id = changed.sandbox_id
        if changed.state_delta:
            self.state = load_state(apply_delta(dump_state(self.state), changed.state_delta))
            self._told_state = self.state


def nobody_polls(error: ActivityError) -> bool:
    """Tell whether the activity never started because its queue has no worker."""
    cause = error.cause
    return (
        isinstance(cause, exceptions.TimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START
    )


def next_epoch(previous: int = 0) -> int:
    """Return an epoch later than `previous` and than those of other workflows with the session."""
    return max(previous + 1, int(workflow.now().timestamp() * 1000))


async def resume_session(
    provider: str, config: ActivityConfig, request: m.ResumeSessionRequest
) -> tuple[m.OpenSessionResponse, SandboxSessionState]:
    """Open the session of ``request.state`` on a worker and return it with its new state."""
    opened = await dispatch(provider, config, ops.RESUME_SESSION, request)
    return opened, load_state(apply_delta(request.state, opened.state_delta))
