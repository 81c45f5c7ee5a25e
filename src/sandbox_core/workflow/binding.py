"""A session's worker and epoch, and how the session is opened again on another worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from agents.sandbox.errors import SandboxError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from temporalio import exceptions, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from sandbox_core.errors import (
    InvalidRequest,
    OperationFailed,
    OutcomeUnknown,
    SandboxCoreError,
    SandboxLost,
    SessionNotOpen,
)
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import apply_delta, dump_state, load_state
from sandbox_core.wire.naming import host_of, ping_queue
from sandbox_core.wire.operations import Operation, ResponseT
from sandbox_core.wire.snapshot_ids import is_saved
from sandbox_core.workflow.dispatch import dispatch
from sandbox_core.workflow.handles import add_handle
from sandbox_core.workflow.live_output import CommandPublisher, LiveOutput
from sandbox_core.workflow.placement import Move, Placement, Trouble
from sandbox_core.workflow.polling import PolledProcess
from sandbox_core.workflow.resuming import (
    Patience,
    Resumed,
    next_epoch,
    resume_session,
    unanswered,
)
from sandbox_core.workflow.usage import Usage, UsageMeter

_SessionRequestT = TypeVar("_SessionRequestT", bound=m.SessionRequest)


DEFAULT_SCHEDULE_TO_START_TIMEOUT = timedelta(seconds=60)
"""How long an operation waits in a worker's own queue before the worker is pinged."""

# How long a worker has to answer a ping; that queue carries nothing else.
_PING_TIMEOUT = timedelta(seconds=20)

# Without this patch, a workflow waits for the worker's own queue even if another worker on the host
# could take over the session.
_TAKE_OVER = "sandbox-core-take-over"

# Without this patch, a worker that does not answer in time counts as gone.
_PING = "sandbox-core-ping"

# Without this patch, only terminals are pinned to their worker where there is no helper.
_PIN_PROCESSES = "sandbox-core-pin-processes"

# Without this patch, a lost sandbox counts as running: an operation that fails because of it raises
# no doubt, and `running` raises `SandboxLost`.
DOUBTED = "sandbox-core-doubted"

# How often an operation may land on a worker that does not hold the session. Usually once; more
# often when several workers share the queue and the session is not pinned, and when workers die one
# after another, each just after resuming the session.
_MAX_RESUMES = 20


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """A lost sandbox whose workspace was restored from its last snapshot in a new one.

    Changes since that snapshot are gone. The ids are the backend's, or None if the provider does
    not support identity.
    """

    lost_sandbox_id: str | None
    sandbox_id: str | None


_DELETED = "sandbox-core-deleted"

# Without this patch, an operation after a failed first start makes another sandbox.
_DISCARDED = "sandbox-core-discarded"


class PlacedSession(BaseSandboxSession):
    """The part of a workflow's session that tracks where the real session is.

    It keeps what must survive a worker: the session state, the epoch, and whether the workspace was
    started. `Placement` decides what happens when the session has moved.
    """

    restorations: tuple[Restoration, ...]
    """The sandboxes lost and restored from a snapshot since the session was opened."""

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
        live: LiveOutput | None = None,
    ) -> None:
        self.state = state
        self.restorations: tuple[Restoration, ...] = ()
        self._workflow = _running_workflow()
        self._provider = provider
        self._config = config
        self._ref = opened.session
        self._handle = opened.handle
        self._supports_pty = opened.supports_pty
        self._sandbox_id = opened.sandbox_id
        self._placement = Placement(worker_queue=opened.worker_queue, host_bound=opened.host_bound)
        self._started = opened.started
        # Set while the sandbox was created for this session and has not been started.
        self._unused = idempotency_key
        self._discarded = False
        self.deleted = False
        self._meter = UsageMeter()
        add_handle(self)
        self._generation = opened.generation
        # The last operation failed, so a started session may not be running.
        self._doubtful = False
        self.at_most_once: str | None = None
        self._processes: dict[int, PolledProcess] = {}
        self._users: set[str] = set()
        self._settings = m.SessionSettings()
        # What the worker last received; differences are sent with the next request.
        self._told_state = state
        self._told_settings = m.SessionSettings()
        self._recovering: asyncio.Task[None] | None = None
        self._publisher = (
            None if live is None else CommandPublisher(live, provider, opened.session.session_id)
        )

    # --- The wire -------------------------------------------------------------------------------

    @property
    def session_key(self) -> tuple[str, str]:
        """The provider's name and the session's id."""
        return self._provider, self._ref.session_id

    @property
    def generation(self) -> int:
        """The guarantees of the worker that opened the session; see `OpenSessionResponse`."""
        return self._generation

    @property
    def usage(self) -> Usage:
        """What the session has used in this workflow so far."""
        return self._meter.usage()

    def mark_deleted(self) -> None:
        """Note that this workflow deleted the sandbox, through any handle."""
        self.deleted = True
        self._meter.sandbox_deleted()

    def _is_deleted(self) -> bool:
        """Whether this workflow deleted the sandbox; each operation asks this first.

        Raises:
            InvalidRequest: Another workflow asks. A worker that stops drops its workflows, whose
                unfinished `async with` blocks Python ends at any time, in another workflow too.
        """
        if self._workflow is not _running_workflow():
            raise InvalidRequest(
                f"session {self._ref.session_id} of provider {self._provider!r} belongs to another "
                f"workflow. Pass its state instead: `await client.resume(state)`."
            )
        # Without this patch, a workflow used a deleted session again.
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
            response = await self._perform(operation, request, body)
            self._meter.answered(request, body, response)
            return response
        except SandboxError as error:
            self._meter.failed(request, error)
            raise
        except (OperationFailed, OutcomeUnknown, SandboxLost) as error:
            self._meter.failed(request, error)
            # Also those of a recovery. An operation's other errors have always raised a doubt, and
            # those of a recovery have not: asking again would be another command on replay.
            self._doubtful = self._doubtful or workflow.patched(DOUBTED)
            raise

    async def _perform(
        self,
        operation: Operation[_SessionRequestT, ResponseT],
        request: _SessionRequestT,
        body: bytes | None,
    ) -> ResponseT:
        if self._is_deleted():
            raise SandboxLost(
                f"sandbox {self._sandbox_id} of provider {self._provider!r} was deleted by this "
                f"workflow, so {operation.name} is not possible. Create a session, or resume this "
                f"one's state to get a new sandbox from its last snapshot."
            )
        if self._discarded and operation is not ops.START and workflow.patched(_DISCARDED):
            raise SandboxLost(
                f"sandbox {self._sandbox_id} of provider {self._provider!r} was deleted, because "
                f"its first start failed, so {operation.name} is not possible. Start the session "
                f"again, which creates another sandbox, or create a session."
            )
        patience, moves, asked = Patience(self._config), 0, False
        while moves < _MAX_RESUMES:
            if asked and self._publisher is not None:
                request = self._publisher.repeated(request)
            asked = True
            current, state = self._current(request), self.state
            asked_at = self._placement.queue_after(moves)
            try:
                response = await dispatch(
                    self._provider, self._config_of(current, asked_at), operation, current, body
                )
            except SessionNotOpen as error:
                if error.has_earlier_attempt and isinstance(request, m.KeyedRequest):
                    request = request.model_copy(update={"repeated": True})
                await self._recover(Trouble.NOT_OPEN, stale=current.session)
            except SandboxError:
                self._doubtful = True
                raise
            except ActivityError as error:
                if asked_at is None or not unanswered(error):
                    self._doubtful = True
                    raise
                if not self._placement.pinned and not workflow.patched(_PING):
                    raise
                await self._recover(Trouble.UNANSWERED, stale=current.session)
                if self._ref == current.session and self._placement.queue_after(moves) == asked_at:
                    patience.check(asked_at, error)
                    continue
            else:
                self._mark_told(current, state)
                if isinstance(response, m.PtyResponse) and _is_of_a_worker(request, response):
                    self._placement.pin()
                return response
            moves += 1
        last = self._current(request)
        queue = self._placement.queue_after(moves)
        return await dispatch(self._provider, self._config_of(last, queue), operation, last, body)

    def _config_of(self, request: m.SessionRequest, queue: str | None) -> ActivityConfig:
        config = _at_queue(self._config, queue)
        if self._generation > 0 and isinstance(request, m.KeyedRequest):
            config = config.copy()
            # The workflow learns of a cancellation once the command has ended.
            config.setdefault(
                "cancellation_type", ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
            )
        return config

    def _activity_config(self, config: ActivityConfig | None = None) -> ActivityConfig:
        return _at_queue(config or self._config, self._placement.queue)

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
            return  # The session was resumed meanwhile, with the current state and settings.
        if request.settings is not None:
            self._told_settings = request.settings
        if request.state is not None:
            self._told_state = state

    # --- Recovery -------------------------------------------------------------------------------

    async def _recover(self, met: Trouble, *, stale: m.SessionRef) -> None:
        """Do what `Placement` says, once for all operations that find the session stale.

        A cancelled operation only stops waiting: other operations still need the session, and a
        sandbox opened for it must not be forgotten.
        """
        move = self._placement.move(met)
        if move is Move.TAKE_OVER and not workflow.patched(_TAKE_OVER):
            self._placement.pin()
            return
        if self._ref != stale:
            return  # Another operation resumed it meanwhile.
        if self._recovering is None or self._recovering.done():
            self._recovering = asyncio.create_task(self._make(move))
        await asyncio.shield(self._recovering)

    async def _recovered(self) -> None:
        """Wait until no recovery is in progress."""
        await workflow.wait_condition(lambda: self._recovering is None or self._recovering.done())

    async def _make(self, move: Move) -> None:
        settings = self._settings
        request = m.ResumeSessionRequest(
            state=dump_state(self.state),
            epoch=next_epoch(self._ref.epoch),
            started=self._started,
            sandbox_id=self._sandbox_id,
            settings=settings,
            held_by=self._placement.worker_queue if move is Move.TAKE_OVER else None,
            handle=self._handle,
        )
        if move is Move.GIVE_UP:
            answer = await self._given_up(request)
        else:
            answer = await self._resumed(request)
        if answer is not None:
            self._opened_again(*answer, settings)

    async def _resumed(self, request: m.ResumeSessionRequest) -> Resumed | None:
        """Resume the session at its current queue; None if its own worker still holds it."""
        patience = Patience(self._config)
        while True:
            asked_at = self._placement.queue
            try:
                return await resume_session(self._provider, self._activity_config(), request)
            except SessionNotOpen:
                if request.held_by is None:
                    raise
                self._placement.pin()
                return None
            except ActivityError as error:
                if not unanswered(error):
                    raise
                if asked_at is None:
                    return await self._resumed_elsewhere(request)
                answer = await self._given_up(request)
                if answer is not None:
                    return answer
                patience.check(asked_at, error)

    async def _given_up(self, request: m.ResumeSessionRequest) -> Resumed | None:
        """Resume the session on another worker; None if its own worker is just busy."""
        if await self._lives():
            return None
        return await self._resumed_elsewhere(request)

    async def _lives(self) -> bool:
        """Return whether the worker that holds the session answers a ping."""
        queue = self._placement.worker_queue
        if queue is None or not workflow.patched(_PING):
            return False
        asking = self._config.copy()
        asking["task_queue"] = ping_queue(queue)
        asking["schedule_to_start_timeout"] = _PING_TIMEOUT
        asking["schedule_to_close_timeout"] = _PING_TIMEOUT * 2
        asking["retry_policy"] = RetryPolicy(maximum_attempts=1)
        try:
            await dispatch(self._provider, asking, ops.PING, m.PingRequest())
        except ActivityError as error:
            if isinstance(error.cause, exceptions.TimeoutError):
                return False
            raise
        except SandboxCoreError:
            return True  # Alive, but failing: the operation's own error will say why.
        return True

    async def _resumed_elsewhere(self, request: m.ResumeSessionRequest) -> Resumed:
        """Resume the session on any worker, because its own is gone."""
        try:
            return await resume_session(self._provider, self._config, request)
        except SandboxLost as lost:
            queue = self._placement.worker_queue
            if not self._placement.on_one_host or queue is None:
                raise
            # The worker's error names its own host, where the sandbox never was.
            snapshot = self.state.snapshot
            unsaved = (
                f"its snapshot {snapshot.id} is missing from the storage"
                if is_saved(snapshot)
                else "its workspace was never saved to a snapshot"
            )
            raise SandboxLost(
                f"sandbox {self._sandbox_id} of provider {self._provider!r} is on host "
                f"{host_of(queue)}, where no worker answered, and {unsaved}. Restart a worker on "
                f"that host, or call session.stop() to save what must outlive it."
            ) from lost

    def _opened_again(
        self,
        opened: m.OpenSessionResponse,
        state: SandboxSessionState,
        settings: m.SessionSettings,
    ) -> None:
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
        if opened.restored or self._discarded:
            self._meter.sandbox_replaced()
        self._ref = opened.session
        self._handle = opened.handle or self._handle
        self._started = self._started or opened.started
        self._sandbox_id = opened.sandbox_id
        self._placement.moved(opened.worker_queue)
        self._told_settings = settings
        self.state = self._told_state = state

    async def _change_state(
        self, operation: Operation[_SessionRequestT, m.StateResponse], request: _SessionRequestT
    ) -> None:
        changed = await self._call(operation, request)
        if changed.sandbox_id is not None:
            self._sandbox_id = changed.sandbox_id
        if changed.state_delta:
            self.state = load_state(apply_delta(dump_state(self.state), changed.state_delta))
            self._told_state = self.state


def _at_queue(config: ActivityConfig, queue: str | None) -> ActivityConfig:
    """Return activity options for a worker's own queue; None is the workflow's."""
    if queue is None:
        return config
    pinned = config.copy()
    pinned["task_queue"] = queue
    pinned.setdefault("schedule_to_start_timeout", DEFAULT_SCHEDULE_TO_START_TIMEOUT)
    return pinned


def _running_workflow() -> asyncio.AbstractEventLoop | None:
    """Return what identifies the workflow whose code runs: each is an event loop of its own."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _is_of_a_worker(request: m.SessionRequest, response: m.PtyResponse) -> bool:
    """Return whether only the worker that started the process can poll it."""
    if not isinstance(request, m.PtyExecStartRequest) or response.offset is not None:
        return False
    return request.tty or (response.process_id is not None and workflow.patched(_PIN_PROCESSES))
