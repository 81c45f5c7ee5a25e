"""The error with which a provider's session reports that its sandbox has stopped."""

from __future__ import annotations

from agents.sandbox.errors import ExecTransportError


class SandboxStopped(ExecTransportError):
    """Raised for a call that was not started, because the sandbox exists but is not running.

    The workflow resumes the session and, where that is safe, repeats the operation. So raise this
    only if resuming starts the sandbox again with its workspace.
    """
