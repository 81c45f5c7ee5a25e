"""Handles operations on a held session whose sandbox is gone or has stopped."""

from __future__ import annotations

import errno
import logging
import os

from agents.sandbox.errors import ExecTimeoutError, SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.errors import OutcomeUnknown, SandboxCoreError, SandboxLost, SessionNotOpen
from sandbox_core.providers.registry import Provider
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
"""Folders that are in memory in most sandboxes, and are lost when the sandbox stops."""


async def reason_of(
    call: Call,
    operation: Operation[Message, Message | bytes | None],
    request: Message,
    error: Exception,
) -> Exception:
    """Return the error of a failed operation: `error`, unless its sandbox is gone or has stopped.

    The backend is asked whether the sandbox exists, if the provider can. If it is gone or stopped,
    the session's handle is evicted, so that the workflow resumes the session. The resume restores a
    lost sandbox from its last snapshot or raises `SandboxLost`, and starts a stopped one again with
    its workspace. Then a repeatable operation is repeated; any other may have begun, and fails.
    """
    provider = call.provider
    if not isinstance(request, SessionRequest) or isinstance(
        error, SandboxCoreError | ExecTimeoutError
    ):
        return error
    held = call.pool.find(request.session.session_id)
    user = None if held is None else held.user(request.session)
    if held is None or user is None:
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
    restores = "The next operation restores"
    if user.left:
        restores = "The session was shut down: its next start restores"
    return SandboxLost(
        f"{sandbox}{on_host(provider)} no longer exists. {what} may have started in it and was "
        f"not repeated. {restores} the workspace from its last snapshot, if there is one."
    )


async def workspace_lost(provider: Provider, session: SandboxSession) -> SandboxLost | None:
    """Return the error for a sandbox whose workspace was removed; None if it was not.

    Commands run in the workspace, so without it the backend cannot start any.
    """
    root = session.state.manifest.root
    try:
        ran = await session.exec("sh", "-c", ":", shell=False)
    except SandboxError:
        return None
    said = (ran.stdout + ran.stderr).decode(errors="replace").lower()
    if ran.ok() or root.lower() not in said or os.strerror(errno.ENOENT).lower() not in said:
        return None
    return SandboxLost(
        f"the workspace {root} was removed from sandbox "
        f"{sandbox_identity(provider, session.state)} of provider {provider.name!r}, so it was not "
        f"saved. Its last snapshot, if there is one, is unchanged."
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
    """Evict the session, so that a resume starts its sandbox; return the operation's error."""
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
                f"{held.session_id}, whose sandbox has stopped, and the record of that is lost. It "
                f"was not repeated; look at the workspace before you run it again."
            )
        # The record, if it exists, says whether the command has begun.
        return SessionNotOpen.with_earlier_attempt(held.session_id)
    if operation.effect is Effect.ONCE:
        return stopped
    return SessionNotOpen(f"the sandbox of session {held.session_id} does not run")
