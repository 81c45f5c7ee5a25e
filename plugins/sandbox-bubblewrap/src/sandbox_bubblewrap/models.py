"""What a user chooses of a sandbox, and what a session's state says of it."""

from __future__ import annotations

from typing import Literal

from agents.sandbox.errors import ConfigurationError, ErrorCode, OpName
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from pydantic import Field

from sandbox_core.providers import StrictOptions

MIB = 1024 * 1024

SANDBOX_ID = r"^bwrap-\d{1,10}-[0-9a-f]{16}$"
"""What an id looks like: with the user that its commands run as, or 0 for the worker's."""


class BubblewrapSandboxClientOptions(StrictOptions, BaseSandboxClientOptions):
    """What a sandbox may use, each value with a default; None is no limit.

    Where the worker may not make cgroups, `memory_mb` holds for each process by itself, and `cpus`
    does not hold: `strict` refuses to create a sandbox there. See the README.
    """

    type: Literal["bubblewrap"] = "bubblewrap"
    network: Literal["none", "host"] = "none"
    """``none``: a loopback of its own. ``host``: the host's, with what listens on its loopback."""
    exposed_ports: tuple[int, ...] = ()
    """Ports of commands that are reached from outside; takes ``network="host"``."""
    memory_mb: int | None = Field(default=2048, ge=32)
    """Memory of all processes, with what is in /dev/shm."""
    processes: int | None = Field(default=512, ge=8)
    """Processes and threads at once."""
    cpus: float | None = Field(default=None, gt=0)
    """CPUs that all processes together may keep busy."""
    cpu_seconds: int | None = Field(default=None, ge=1)
    """CPU time of one process; it is killed then."""
    file_size_mb: int | None = Field(default=4096, ge=1)
    """Size of one file that is written."""
    open_files: int = Field(default=4096, ge=64)
    """Open files of one process."""
    shm_mb: int = Field(default=256, ge=1)
    """Size of /dev/shm, which is in memory, and gone when the sandbox is stopped."""
    strict: bool = False
    """Whether a limit that would not hold for the whole sandbox is an error."""


class BubblewrapSandboxSessionState(SandboxSessionState):
    """What outlives a process of a session: which sandbox it is, and what it was made with."""

    type: Literal["bubblewrap"] = "bubblewrap"
    sandbox_id: str = Field(pattern=SANDBOX_ID)
    options: BubblewrapSandboxClientOptions
    limits: dict[str, str] = Field(default_factory=dict)
    """What holds each limit since the sandbox was started last: ``cgroup v1``, ``cgroup v2``,
    ``prlimit`` (each process by itself) or ``nothing``."""


def refusal(message: str, op: OpName, **context: object) -> ConfigurationError:
    """Return the error for what a manifest, options or a call ask for and no sandbox here has."""
    return ConfigurationError(
        message=message,
        error_code=ErrorCode.SANDBOX_CONFIG_INVALID,
        op=op,
        context=context,
        retryable=False,
    )
