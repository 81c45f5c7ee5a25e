"""The API for workers."""

from sandbox_core.worker.access import Authorize, SandboxAccess
from sandbox_core.worker.plugin import SandboxPlugin
from sandbox_core.worker.secrets import AllowAllWorkerEnvVars

__all__ = ["AllowAllWorkerEnvVars", "Authorize", "SandboxAccess", "SandboxPlugin"]
