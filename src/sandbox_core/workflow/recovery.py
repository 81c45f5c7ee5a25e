"""Performs a session's operations, resuming it elsewhere if its worker is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from agents.sandbox.errors import SandboxError
from temporalio import exceptions, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from sandbox_core.errors import (
    OperationFailed,
    OutcomeUnknown,
    SandboxCoreError,
    SandboxLost,
    SessionNotOpen,
)
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.naming import host_of, ping_queue
from sandbox_core.wire.operations import Operation, ResponseT
from sandbox_core.wire.snapshot_ids import is_saved
from sandbox_core.wire.summaries import summarize
from sandbox_core.workflow.dispatch import dispatch
from sandbox_core.workflow.local_activities import again
from sandbox_core.workflow.placement import Move, Trouble
from sandbox_core.workflow.record import SessionRecord, at_queue
from sandbox_core.workflow.resuming import Patience, Resumed, resume_session, unanswered

_SessionRequestT = TypeVar("_SessionRequestT", bound=m.SessionRequest)

# How long a worker has to answer a ping; that queue carries nothing else.
_PING_TIMEOUT = timedelta(seconds=20)

# Without this patch, a workflow waits for the worker's own queue even if another worker on the host
# could take over the session.
_TAKE_OVER = "sandbox-core-take-over"

# Without this patch, a worker that does not answer in time counts as gone.
_PING = "sandbox-core-ping"

# Without this patch, the error of a resume hides that a command of a worker that is gone may run.
_RESUME_IN_DOUBT = "sandbox-core-resume-in-doubt"

# Without this patch, only terminals are pinned to their worker where there is no helper.
_PIN_PROCESSES = "sandbox-core-pin-processes"

# How often an operation may land on a worker that does not hold the session. Usually once; more
# often when several workers share the queue and the session is not pinned, and when workers die one
# after another, each just after resuming the session.
_MAX_RESUMES = 20


class Recovery:
    """Sends a session's operations to its worker, and recovers the session if it is not there.

    `Placement` decides what to do about a worker that does not hold the session or does not answer.
    All operations that find the session stale share one recovery.

    Args:
        record: The session.
        resumed: Called with what a worker answered after it opened the session again.
    """

    def __init__(
        self, record: SessionRecord, *, resumed: Callable[[m.OpenSessionResponse], None]
    ) -> None:
        self._record = record
        self._on_resumed = resumed
        self._recovering: asyncio.Task[None] | None = None

    async def perform(
        self,
        operation: Operation[_SessionRequestT, ResponseT],
        request: _SessionRequestT,
        body: bytes | None,
        *,
        repeated: Callable[[_SessionRequestT], _SessionRequestT],
    ) -> ResponseT:
        """Perform `operation`, resuming the session first if the worker does not hold it.

        Args:
            operation: A row of the table.
            request: The request; epoch, state and settings are added.
            body: The raw data, if the operation takes any.
            repeated: Adapts a request that was sent before and is sent again.

        Raises:
            WorkerBusy: The worker that holds the session is alive but did not start the operation.
            SandboxLost: The sandbox and its workspace are gone.
            OutcomeUnknown: The worker is gone, and the session cannot be opened again.
        """
        record, placement = self._record, self._record.placement
        patience, moves = Patience(record.config), 0
        while True:
            current, state = record.current(request), record.state
            queue = placement.queue_after(moves)
            config = self._config_of(current, queue)
            try:
                response = await dispatch(record.provider, config, operation, current, body)
            except SessionNotOpen as error:
                if moves == _MAX_RESUMES:
                    raise
                if isinstance(request, m.KeyedRequest):
                    request = again(request, error)
                try:
                    await self._recover(Trouble.NOT_OPEN, operation, stale=current.session)
                except (ActivityError, OperationFailed, SandboxError) as failed:
                    if _hides_outcome(request, failed):
                        raise self._in_doubt(operation, request, failed) from failed
                    raise
                moves += 1
            except ActivityError as error:
                if queue is None or moves == _MAX_RESUMES or not unanswered(error):
                    raise
                if not placement.pinned and not workflow.patched(_PING):
                    raise
                await self._recover(Trouble.UNANSWERED, operation, stale=current.session)
                if record.ref == current.session and placement.queue_after(moves) == queue:
                    patience.check(queue, error)
                else:
                    moves += 1
            else:
                record.told(current, state)
                if isinstance(response, m.PtyResponse) and _is_of_a_worker(request, response):
                    placement.pin()
                return response
            request = repeated(request)

    def _in_doubt(
        self,
        operation: Operation[_SessionRequestT, ResponseT],
        request: _SessionRequestT,
        failed: Exception,
    ) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self._record.provider} {operation.name}: {summarize(request.summary())!r} may or "
            f"may not have run: its worker is gone, and the session cannot be opened again: "
            f"{failed}. It was not repeated; check the workspace before running it again."
        )

    async def settle(self) -> None:
        """Wait until no recovery is in progress."""
        await workflow.wait_condition(lambda: self._recovering is None or self._recovering.done())

    async def worker_answers(self) -> bool:
        """Return whether the worker that holds the session answers a ping."""
        queue = self._record.placement.worker_queue
        if queue is None or not workflow.patched(_PING):
            return False
        asking = self._record.config.copy()
        asking["task_queue"] = ping_queue(queue)
        asking["schedule_to_start_timeout"] = _PING_TIMEOUT
        asking["schedule_to_close_timeout"] = _PING_TIMEOUT * 2
        asking["retry_policy"] = RetryPolicy(maximum_attempts=1)
        try:
            await dispatch(self._record.provider, asking, ops.PING, m.PingRequest())
        except ActivityError as error:
            if isinstance(error.cause, exceptions.TimeoutError):
                return False
            raise
        except SandboxCoreError:
            return True  # Alive, but failing: the operation's own error will say why.
        return True

    def _config_of(self, request: m.SessionRequest, queue: str | None) -> ActivityConfig:
        config = at_queue(self._record.config, queue)
        if self._record.generation > 0 and isinstance(request, m.KeyedRequest):
            config = config.copy()
            # The workflow learns of a cancellation once the command has ended.
            config.setdefault(
                "cancellation_type", ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
            )
        return config

    async def _recover(
        self,
        met: Trouble,
        operation: Operation[_SessionRequestT, ResponseT],
        *,
        stale: m.SessionRef,
    ) -> None:
        """Do what `Placement` says, once for all operations that find the session stale.

        A cancelled operation only stops waiting: other operations still need the session, and a
        sandbox opened for it must not be forgotten.
        """
        move = self._record.placement.move(met)
        if move is Move.TAKE_OVER and not workflow.patched(_TAKE_OVER):
            self._record.placement.pin()
            return
        if self._record.ref != stale:
            return  # Another operation resumed it meanwhile.
        if self._recovering is None or self._recovering.done():
            to_start = operation.name == ops.START.name
            self._recovering = asyncio.create_task(self._make(move, to_start=to_start))
        await asyncio.shield(self._recovering)

    async def _make(self, move: Move, *, to_start: bool) -> None:
        worker_queue = self._record.placement.worker_queue
        request = self._record.resume_request(
            held_by=worker_queue if move is Move.TAKE_OVER else None, to_start=to_start
        )
        if move is Move.GIVE_UP:
            answer = await self._given_up(request)
        else:
            answer = await self._resumed(request)
        if answer is not None:
            opened, state = answer
            self._record.opened_again(request, opened, state)
            self._on_resumed(opened)

    async def _resumed(self, request: m.ResumeSessionRequest) -> Resumed | None:
        """Resume the session at its current queue; None if its own worker still holds it."""
        record = self._record
        patience = Patience(record.config)
        while True:
            queue = record.placement.queue
            try:
                return await resume_session(
                    record.provider, at_queue(record.config, queue), request
                )
            except SessionNotOpen:
                if request.held_by is None:
                    raise
                record.placement.pin()
                return None
            except ActivityError as error:
                if not unanswered(error):
                    raise
                if queue is None:
                    return await self._resumed_elsewhere(request)
                answer = await self._given_up(request)
                if answer is not None:
                    return answer
                patience.check(queue, error)

    async def _given_up(self, request: m.ResumeSessionRequest) -> Resumed | None:
        """Resume the session on another worker; None if its own worker is just busy."""
        if await self.worker_answers():
            return None
        return await self._resumed_elsewhere(request)

    async def _resumed_elsewhere(self, request: m.ResumeSessionRequest) -> Resumed:
        """Resume the session on any worker, because its own is gone."""
        record = self._record
        try:
            return await resume_session(record.provider, record.config, request)
        except SandboxLost as lost:
            queue = record.placement.worker_queue
            if not record.placement.on_one_host or queue is None:
                raise
            # The worker's error names its own host, where the sandbox never was.
            snapshot = record.state.snapshot
            unsaved = (
                f"its snapshot {snapshot.id} is missing from the storage"
                if is_saved(snapshot)
                else "its workspace was never saved to a snapshot"
            )
            raise SandboxLost(
                f"sandbox {record.sandbox_id} of provider {record.provider!r} is on host "
                f"{host_of(queue)}, where no worker answered, and {unsaved}. Restart a worker on "
                f"that host, or call session.stop() to save what must outlive it."
            ) from lost


def _hides_outcome(request: m.SessionRequest, failed: Exception) -> bool:
    """Return whether the error of a resume would hide that the request may be carried out."""
    return (
        isinstance(request, m.KeyedRequest)
        and request.repeated
        and not exceptions.is_cancelled_exception(failed)
        and workflow.patched(_RESUME_IN_DOUBT)
    )


def _is_of_a_worker(request: m.SessionRequest, response: m.PtyResponse) -> bool:
    """Return whether only the worker that started the process can poll it."""
    if not isinstance(request, m.PtyExecStartRequest) or response.offset is not None:
        return False
    return request.tty or (response.process_id is not None and workflow.patched(_PIN_PROCESSES))
