"""Explains the failure of a command as another user in a sandbox without ``sudo``."""

from __future__ import annotations

from agents.sandbox.errors import ExecTransportError, SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.errors import InvalidRequest, OutcomeUnknown
from sandbox_core.wire.messages import CommandRequest, Message
from sandbox_core.worker.call import Call
from sandbox_core.worker.sdk_session import prepared_command


async def missing_sudo(call: Call, request: Message, error: Exception) -> InvalidRequest | None:
    """Return the error to raise if a command failed because the sandbox has no ``sudo``.

    Such a command was never started, so its outcome is known. None if that is not the reason.
    """
    if not (
        isinstance(request, CommandRequest)
        and request.user is not None
        and isinstance(error, ExecTransportError | OutcomeUnknown)
    ):
        return None
    held = call.pool.find(request.session.session_id)
    if held is None:
        return None
    words = prepared_command(held.session, "true", shell=False, user=request.user)
    if words[0] != "sudo":
        return None
    try:
        found = await held.session.exec("command -v sudo")
    except SandboxError:
        return None
    if found.ok() or await _switches_users(held.session):
        return None
    return InvalidRequest(
        f"the command was not started: running it as user {request.user!r} requires sudo, which "
        f"the sandbox does not have. Install it, or pass no user."
    )


async def _switches_users(session: SandboxSession) -> bool:
    """Return whether the backend itself runs commands as other users."""
    try:
        return (await session.exec("true", shell=False, user="root")).ok()
    except SandboxError:
        return False
