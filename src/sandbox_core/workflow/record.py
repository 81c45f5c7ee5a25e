"""What a workflow knows of a session: enough to open it again on another worker."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from temporalio import workflow
from temporalio.workflow import ActivityConfig

from sandbox_core.wire import messages as m
from sandbox_core.wire.agents_models import apply_delta, dump_state, load_state
from sandbox_core.workflow.placement import Placement
from sandbox_core.workflow.resuming import next_epoch

_SessionRequestT = TypeVar("_SessionRequestT", bound=m.SessionRequest)

DEFAULT_SCHEDULE_TO_START_TIMEOUT = timedelta(seconds=60)
"""How long an operation waits in a worker's own queue before the worker is pinged."""


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """A lost sandbox whose workspace was restored from its last snapshot in a new one.

    Changes since that snapshot are gone. The ids are the backend's, or None if the provider does
    not support identity.
    """

    lost_sandbox_id: str | None
    sandbox_id: str | None


class HasState(Protocol):
    """A session of the Agents SDK, whose state the SDK reads and replaces."""

    state: SandboxSessionState


class SessionRecord:
    """Where a session is, at which epoch, and what its worker was told.

    The session's state stays an attribute of the session itself; the record reads and replaces it
    there.
    """

    def __init__(
        self,
        session: HasState,
        provider: str,
        config: ActivityConfig,
        opened: m.OpenSessionResponse,
    ) -> None:
        self._session = session
        self.provider = provider
        self.config = config
        self.ref = opened.session
        self.sandbox_id = opened.sandbox_id
        self.generation = opened.generation
        self.started = opened.started
        self.shut_down = False
        self.placement = Placement(worker_queue=opened.worker_queue, host_bound=opened.host_bound)
        self.restorations: tuple[Restoration, ...] = ()
        self.retried_keys = _retried(opened)
        self.settings = m.SessionSettings()
        self._handle = opened.handle
        # What the worker last received; differences are sent with the next request.
        self._told_state = session.state
        self._told_settings = m.SessionSettings()

    @property
    def state(self) -> SandboxSessionState:
        """The session's present state."""
        return self._session.state

    def current(self, request: _SessionRequestT) -> _SessionRequestT:
        """Return `request` with the present epoch, and with what the worker does not know yet."""
        settings = None if self.settings == self._told_settings else self.settings
        return request.model_copy(
            update={
                "session": self.ref,
                "state": None if self.state is self._told_state else dump_state(self.state),
                "settings": settings,
            }
        )

    def told(self, request: m.SessionRequest, state: SandboxSessionState) -> None:
        """Note that the worker received `request`, which was made when the state was `state`."""
        if request.session != self.ref:
            return  # The session was resumed meanwhile, with the current state and settings.
        if request.settings is not None:
            self._told_settings = request.settings
        if request.state is not None:
            self._told_state = state

    def changed(self, response: m.StateResponse) -> None:
        """Apply the worker's changes to the state."""
        if response.sandbox_id is not None:
            self.sandbox_id = response.sandbox_id
        if response.state_delta:
            state = load_state(apply_delta(dump_state(self.state), response.state_delta))
            self._session.state = self._told_state = state

    def resume_request(self, *, held_by: str | None, to_start: bool) -> m.ResumeSessionRequest:
        """Return the request that opens the session again, at a later epoch.

        Args:
            held_by: The own queue of the worker that holds it, if another may take it over.
            to_start: Whether a start follows, which can use another sandbox after a shutdown.
        """
        return m.ResumeSessionRequest(
            state=dump_state(self.state),
            epoch=next_epoch(self.ref.epoch),
            started=self.started,
            sandbox_id=self.sandbox_id,
            settings=self.settings,
            held_by=held_by,
            handle=self._handle,
            shut_down=self.shut_down and not to_start,
        )

    def opened_again(
        self,
        request: m.ResumeSessionRequest,
        opened: m.OpenSessionResponse,
        state: SandboxSessionState,
    ) -> None:
        """Note that a worker opened the session; if it restored a lost sandbox, log that."""
        if opened.restored:
            self.restorations += (
                Restoration(lost_sandbox_id=self.sandbox_id, sandbox_id=opened.sandbox_id),
            )
            workflow.logger.warning(
                "sandbox %s of provider %s was lost; its workspace was restored from its last "
                "snapshot in sandbox %s",
                self.sandbox_id,
                self.provider,
                opened.sandbox_id,
            )
        self.ref = opened.session
        self._handle = opened.handle or self._handle
        self.started = self.started or opened.started
        self.sandbox_id = opened.sandbox_id
        self.placement.moved(opened.worker_queue)
        self.retried_keys += _retried(opened)
        if request.settings is not None:
            self._told_settings = request.settings
        self._session.state = self._told_state = state


def _retried(opened: m.OpenSessionResponse) -> tuple[str, ...]:
    return () if opened.retried_key is None else (opened.retried_key,)


def at_queue(config: ActivityConfig, queue: str | None) -> ActivityConfig:
    """Return activity options for a worker's own queue; None is the workflow's."""
    if queue is None:
        return config
    pinned = config.copy()
    pinned["task_queue"] = queue
    pinned.setdefault("schedule_to_start_timeout", DEFAULT_SCHEDULE_TO_START_TIMEOUT)
    return pinned
