"""What workflows import: deterministic, without I/O, without providers."""

from sandbox_core.worker_env import WorkerEnv
from sandbox_core.workflow.client import TemporalSandboxClient, temporal_sandbox_client
from sandbox_core.workflow.sdk import keep_inside_workflows
from sandbox_core.workflow.session import TemporalSandboxSession

__all__ = [
    "TemporalSandboxClient",
    "TemporalSandboxSession",
    "WorkerEnv",
    "temporal_sandbox_client",
]

keep_inside_workflows()
