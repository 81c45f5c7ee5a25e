"""Sandboxes that are gone while a worker holds their session."""

from __future__ import annotations

import logging

from agents.sandbox.errors import ExecTimeoutError

from sandbox_core.errors import SandboxCoreError, SandboxLost, SessionNotOpen
from sandbox_core.wire.messages import Message, SessionRequest
from sandbox_core.wire.operations import Effect, Operation
from sandbox_core.wire.summaries import summarize
from sandbox_core.worker.call import Call
from sandbox_core.worker.sessions.resume import exists, on_host, sandbox_identity

logger = logging.getLogger(__name__)


async def reason_of(
    call: Call,
    operation: Operation[Message, Message | bytes | None],
    request: Message,
    error: Exception,
) -> Exception:
    """Return why an operation has failed: `error`, unless that is because its sandbox is gone.

    The backend is asked, if it can be. The handle of a sandbox that is gone is evicted, so that the
    workflow resumes the session: from its last snapshot, or with `SandboxLost`. An operation that
    may be repeated is, then; any other may have begun in the sandbox that is gone, and ends here.
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
            return error
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
