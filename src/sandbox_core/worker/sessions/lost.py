"""Sandboxes that are gone, or do not run any more, while a worker holds their session."""

from __future__ import annotations

import logging

from agents.sandbox.errors import ExecTimeoutError

from sandbox_core.errors import OutcomeUnknown, SandboxCoreError, SandboxLost, SessionNotOpen
from sandbox_core.providers.stopped import SandboxStopped
from sandbox_core.wire.messages import KeyedRequest, Message, SessionRequest
from sandbox_core.wire.operations import Effect, Operation
from sandbox_core.wire.summaries import summarize
from sandbox_core.worker.call import Call
from sandbox_core.worker.commands.helper import known_records
from sandbox_core.worker.commands.plain import is_repeated
from sandbox_core.worker.sessions.pool import OpenSession
from sandbox_core.worker.sessions.resume import exists, on_host, sandbox_identity

logger = logging.getLogger(__name__)

_UNTIL_IT_STOPS = ("/dev/shm/", "/run/")  # noqa: S108 - of the sandbox
"""Where the files are of memory in most sandboxes, and end with its processes."""


async def reason_of(
    call: Call,
    operation: Operation[Message, Message | bytes | None],
    request: Message,
    error: Exception,
) -> Exception:
    """Return why an operation has failed: `error`, unless its sandbox is gone or does not run.

    The backend is asked, if it can be. The handle of such a sandbox is evicted, so that the
    workflow resumes the session: one that is gone comes from its last snapshot, or with
    `SandboxLost`; one that does not run is started again with its workspace. An operation that
    may be repeated is, then; any other may have begun, and ends here.
    """
    provider = call.provider
    if not isinstance(request, SessionRequest) or isinstance(
        error, SandboxCoreError | ExecTimeoutError
    ):
        return error
    held = call.pool.find(request.session.session_id)
    if held is None or held.user(request.session) is None:
        return error
    state = held.session.state
    try:
        if await exists(provider, call.client, state) is not False:
            stopped = _stopped(error)
            return error if stopped is None else _reopened(call, operation, request, held, stopped)
    except Exception as unanswered:  # noqa: BLE001 - a provider's; the first error counts
        logger.info("the backend could not tell whether a sandbox exists: %s", unanswered)
        return error
    call.pool.remove(request.session.session_id)
    if operation.effect in (Effect.READ, Effect.IDEMPOTENT):
        return SessionNotOpen(f"the sandbox of session {state.session_id} no longer exists")
    sandbox = f"sandbox {sandbox_identity(provider, state)} of provider {provider.name!r}"
    what = f"{operation.name} {summarize(request.summary())!r}"
    return SandboxLost(
        f"{sandbox}{on_host(provider)} no longer exists. {what} may have started in it and was "
        f"not repeated. The next operation restores the workspace from its last snapshot, if "
        f"there is one."
    )


def _stopped(error: BaseException | None) -> SandboxStopped | None:
    while error is not None and not isinstance(error, SandboxStopped):
        error = error.__cause__
    return error


def _reopened(
    call: Call,
    operation: Operation[Message, Message | bytes | None],
    request: SessionRequest,
    held: OpenSession,
    stopped: SandboxStopped,
) -> Exception:
    """Have the session resumed, which starts its sandbox; return what the operation fails with."""
    if not held.is_ready:
        return stopped
    call.pool.remove(held.session_id)
    if isinstance(request, KeyedRequest):
        records = known_records(held.session, getattr(request, "user", None))
        if records is None and not is_repeated(request):
            return SessionNotOpen(f"the sandbox of session {held.session_id} does not run")
        if records is not None and records.startswith(_UNTIL_IT_STOPS):
            return OutcomeUnknown(
                f"{summarize(request.summary())!r} may have been started in session "
                f"{held.session_id}, whose sandbox has stopped, and with it went the record of "
                f"that. It was not repeated; look at the workspace before you run it again."
            )
        # Where there is a record, it says whether the command has begun.
        return SessionNotOpen.with_earlier_attempt(held.session_id)
    if operation.effect is Effect.ONCE:
        return stopped
    return SessionNotOpen(f"the sandbox of session {held.session_id} does not run")
