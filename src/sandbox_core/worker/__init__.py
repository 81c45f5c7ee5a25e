"""The API for workers."""

from sandbox_core.wire.metrics import HISTOGRAM_BUCKETS
from sandbox_core.worker.access import Authorize, SandboxAccess
from sandbox_core.worker.plugin import SandboxPlugin
from sandbox_core.worker.secrets import AllowAllWorkerEnvVars

__all__ = [
    "HISTOGRAM_BUCKETS",
    "AllowAllWorkerEnvVars",
    "Authorize",
    "SandboxAccess",
    "SandboxPlugin",
]
