"""The options of a sandbox, and the state of its session."""

from __future__ import annotations

from typing import Literal

from agents.sandbox.errors import ConfigurationError, ErrorCode, OpName
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from pydantic import Field

from sandbox_core.providers import StrictOptions

MIB = 1024 * 1024

SANDBOX_ID = r"^bwrap-\d{1,10}-[0-9a-f]{16}$"
"""The pattern of an id, which contains the user id of commands, or 0 for the worker's user."""


class BubblewrapSandboxClientOptions(StrictOptions, BaseSandboxClientOptions):
    """What a sandbox may use. All fields have defaults; None means no limit.

    If the worker cannot make control groups, `memory_mb` applies to each process separately and
    `cpus` is not enforced; with `strict`, creating a sandbox then fails. See the README.
    """

    type: Literal["bubblewrap"] = "bubblewrap"
    network: Literal["none", "host"] = "none"
    """``none``: only its own loopback. ``host``: the host's network, including its loopback."""
    exposed_ports: tuple[int, ...] = ()
    """Ports of commands that are reachable from outside; requires ``network="host"``."""
    memory_mb: int | None = Field(default=2048, ge=32)
    """Memory of all processes, including /dev/shm, in MiB."""
    processes: int | None = Field(default=512, ge=8)
    """The number of concurrent processes and threads."""
    cpus: float | None = Field(default=None, gt=0)
    """The number of CPUs that all processes together may use."""
    cpu_seconds: int | None = Field(default=None, ge=1)
    """The CPU seconds after which a process is killed."""
    file_size_mb: int | None = Field(default=4096, ge=1)
    """The maximum size of a written file, in MiB."""
    open_files: int = Field(default=4096, ge=64)
    """The number of open files per process."""
    shm_mb: int = Field(default=256, ge=1)
    """The size of /dev/shm in MiB; it is in memory and lost when the sandbox stops."""
    strict: bool = False
    """Whether a limit that cannot be enforced for the whole sandbox is an error."""


class BubblewrapSandboxSessionState(SandboxSessionState):
    """The state of a session: its sandbox, and the options with which that was created."""

    type: Literal["bubblewrap"] = "bubblewrap"
    sandbox_id: str = Field(pattern=SANDBOX_ID)
    options: BubblewrapSandboxClientOptions
    limits: dict[str, str] = Field(default_factory=dict)
    """What has enforced each limit since the last start: ``cgroup v1``, ``cgroup v2``, ``prlimit``
    (per process) or ``nothing``."""


def refusal(message: str, op: OpName, **context: object) -> ConfigurationError:
    """Return the error for a manifest, options or a call that require a missing feature."""
    return ConfigurationError(
        message=message,
        error_code=ErrorCode.SANDBOX_CONFIG_INVALID,
        op=op,
        context=context,
        retryable=False,
    )
