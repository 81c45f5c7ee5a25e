"""The API for workflows: deterministic, without I/O or providers."""

from sandbox_core.wire.mount_credentials import worker_env_reference
from sandbox_core.wire.worker_env import WorkerEnv
from sandbox_core.workflow.agents_patches import keep_inside_workflows
from sandbox_core.workflow.client import TemporalSandboxClient, temporal_sandbox_client
from sandbox_core.workflow.lending import with_session
from sandbox_core.workflow.live_output import LiveOutput
from sandbox_core.workflow.record import Restoration
from sandbox_core.workflow.session import TemporalSandboxSession
from sandbox_core.workflow.session_wrapper import WorkflowSandboxSession
from sandbox_core.workflow.usage import Usage

__all__ = [
    "LiveOutput",
    "Restoration",
    "TemporalSandboxClient",
    "TemporalSandboxSession",
    "Usage",
    "WorkerEnv",
    "WorkflowSandboxSession",
    "temporal_sandbox_client",
    "with_session",
    "worker_env_reference",
]

keep_inside_workflows()
