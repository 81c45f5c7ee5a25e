"""How a provider's session says that its sandbox is there and does not run."""

from __future__ import annotations

from agents.sandbox.errors import ExecTransportError


class SandboxStopped(ExecTransportError):
    """Raised for a call that has not begun, because the sandbox does not run.

    The workflow resumes the session and repeats the operation, where that is safe. So raise this
    only if resuming starts the sandbox again with its workspace.
    """
