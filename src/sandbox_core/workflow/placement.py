"""Which queue a session's operations go to, and what happens when its worker is not there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

_MOVES_ANYWHERE = 2


class Trouble(Enum):
    """Why an operation did not reach the worker that holds the session."""

    NOT_OPEN = "a worker answered that it does not hold the session"
    UNANSWERED = "no worker took the operation from its queue in time"


class Move(Enum):
    """What to do before the operation is sent again."""

    RESUME = "resume the session at the queue to which the operation was sent"
    TAKE_OVER = "resume it at the shared queue if its worker is gone, otherwise pin it"
    GIVE_UP = "ping its worker; if there is no answer, resume it at the shared queue"


@dataclass(kw_only=True)
class Placement:
    """The queue to which a session's operations are sent, as a state machine.

    A session starts *shared*: its operations go to the workflow's task queue, where Temporal
    normally hands them to this same worker. It is *pinned* when they go to the own queue of the
    worker that holds it. All transitions:

    ======  ============  ==========  =========  =================================================
    now     lives on      met         move       and then
    ======  ============  ==========  =========  =================================================
    shared  any host      NOT_OPEN    RESUME     shared, where the resume landed
    shared  one host      NOT_OPEN    TAKE_OVER  shared, at a new worker of the host; pinned if the
                                                 session's worker is alive
    pinned  either        NOT_OPEN    RESUME     pinned; shared if it can live on any host
    pinned  either        UNANSWERED  GIVE_UP    unchanged if its worker is alive: it is busy, and
                                                 the operation waits. Otherwise as after RESUME
    ======  ============  ==========  =========  =================================================

    Without the helper, only the worker that started a process can poll it: `pin` then pins the
    session at once.

    Among many workers, an operation and the resumes for it could go on landing on different ones.
    From its second move on, the operation itself goes to the worker that has just resumed the
    session. The placement stays as it is.

    A session that cannot be resumed keeps its placement: its worker may come back.
    """

    worker_queue: str | None
    """The own queue of the worker that holds the session."""

    host_bound: bool
    pinned: bool = False

    @property
    def on_one_host(self) -> bool:
        """Whether only workers on one host can open the session."""
        return self.host_bound and self.worker_queue is not None

    @property
    def queue(self) -> str | None:
        """The task queue for operations; None is the workflow's own."""
        return self.worker_queue if self.pinned else None

    def queue_after(self, moves: int) -> str | None:
        """Return the task queue for an operation that has moved so many times."""
        return self.queue if moves < _MOVES_ANYWHERE else self.worker_queue

    def move(self, met: Trouble) -> Move:
        """Return the transition for `met`."""
        if met is Trouble.UNANSWERED:
            return Move.GIVE_UP
        if self.pinned or not self.on_one_host:
            return Move.RESUME
        return Move.TAKE_OVER

    def pin(self) -> None:
        """Pin the session to its worker's own queue, if the worker has one."""
        self.pinned = self.worker_queue is not None

    def moved(self, worker_queue: str | None) -> None:
        """Record the worker that opened the session."""
        self.worker_queue = worker_queue
        self.pinned = self.pinned and self.host_bound
