"""What workflows import: deterministic, without I/O, without providers."""

from sandbox_core.mounts import worker_env_reference
from sandbox_core.worker_env import WorkerEnv
from sandbox_core.workflow.bound import Restoration
from sandbox_core.workflow.client import (
    TemporalSandboxClient,
    WorkflowSandboxSession,
    temporal_sandbox_client,
)
from sandbox_core.workflow.sdk import keep_inside_workflows
from sandbox_core.workflow.session import TemporalSandboxSession

__all__ = [
    "Restoration",
    "TemporalSandboxClient",
    "TemporalSandboxSession",
    "WorkerEnv",
    "WorkflowSandboxSession",
    "temporal_sandbox_client",
    "worker_env_reference",
]

keep_inside_workflows()
