"""Options that the Agents SDK's lack: limits, a runtime, a read-only root, a user, no network."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from agents.sandbox.sandboxes import docker as sdk
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from sandbox_core.providers import StrictOptions

_MIB = 1024 * 1024

_Runtime = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
_User = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][\w.-]*(:[A-Za-z0-9_][\w.-]*)?$")]


class ContainerSettings(BaseModel):
    """The restrictions of a container; None keeps the engine's setting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_mb: int | None = Field(default=None, ge=6)
    cpus: float | None = Field(default=None, ge=0.01)
    processes: int | None = Field(default=None, ge=8)
    runtime: _Runtime | None = None
    read_only: bool = False
    user: _User | None = None

    def engine_arguments(self, workspace: str) -> dict[str, Any]:
        """Return the keyword arguments of docker-py's ``containers.create``.

        Args:
            workspace: The workspace's folder.
        """
        arguments: dict[str, Any] = {}
        if self.memory_mb is not None:
            # "memswap" limits memory and swap together; without it, swap is added to the limit.
            arguments |= {f"mem{kind}_limit": self.memory_mb * _MIB for kind in ("", "swap")}
        if self.cpus is not None:
            arguments["nano_cpus"] = round(self.cpus * 1e9)
        if self.processes is not None:
            arguments["pids_limit"] = self.processes
        if self.runtime is not None:
            arguments["runtime"] = self.runtime
        if self.user is not None:
            arguments["user"] = self.user
        if self.read_only:
            # Anonymous volumes are removed with the container. Not tmpfs, which is memory: saving a
            # workspace needs as much room in /tmp as the workspace takes.
            arguments |= {"read_only": True, "volumes": [workspace, "/tmp", "/var/tmp"]}  # noqa: S108 - of the container
        return arguments


class DockerSandboxClientOptions(StrictOptions, sdk.DockerSandboxClientOptions, ContainerSettings):
    """The Agents SDK's options of the same name, plus restrictions of the container.

    Args:
        image: As in the SDK's class, like `exposed_ports` and `labels`.
        network_mode: ``"none"`` is no network but a loopback of the container's own; None is the
            engine's default network. By default, it is None if there are `exposed_ports`, and
            otherwise ``"none"``.
        memory_mb: MiB that all processes together may use, without /tmp and swap; a process that
            needs more is killed.
        cpus: The number of CPUs that all processes together may use, such as 1.5.
        processes: The number of concurrent processes and threads.
        runtime: A runtime configured in the engine: ``"runsc"`` is gVisor, ``"kata"`` or
            ``"io.containerd.kata.v2"`` Kata Containers.
        read_only: Whether only the workspace, /tmp and /var/tmp are writable.
        user: The user of commands, ``"name"``, ``"uid"`` or ``"uid:gid"``, who owns the workspace.

    Raises:
        InvalidOptions: A value is out of range.
    """

    # Each class needs its own type, and "docker" is the SDK's.
    type: Literal["sandbox-docker"] = "sandbox-docker"  # type: ignore[assignment]
    # Defaults are left out of JSON, and `__init__` would take None for nothing said.
    network_mode: Literal["none"] | None = "none"

    def __init__(
        self,
        image: str,
        exposed_ports: tuple[int, ...] = (),
        *,
        type: Literal["sandbox-docker"] = "sandbox-docker",  # noqa: A002 - the SDK's name
        network_mode: Literal["none", "as-needed"] | None = "as-needed",
        labels: dict[str, str] | None = None,
        memory_mb: int | None = None,
        cpus: float | None = None,
        processes: int | None = None,
        runtime: str | None = None,
        read_only: bool = False,
        user: str | None = None,
    ) -> None:
        if network_mode == "as-needed":
            network_mode = None if exposed_ports else "none"
        # Not the SDK's `__init__`, which accepts only its own arguments.
        BaseSandboxClientOptions.__init__(
            self,
            type=type,
            image=image,
            exposed_ports=exposed_ports,
            network_mode=network_mode,
            labels={} if labels is None else labels,
            memory_mb=memory_mb,
            cpus=cpus,
            processes=processes,
            runtime=runtime,
            read_only=read_only,
            user=user,
        )

    @property
    def settings(self) -> ContainerSettings:
        """The restrictions of the container."""
        return ContainerSettings(
            **{name: getattr(self, name) for name in ContainerSettings.model_fields}
        )


class DockerSandboxSessionState(sdk.DockerSandboxSessionState):
    """The SDK's state, plus the restrictions of the container, which its replacement gets too."""

    type: Literal["sandbox-docker"] = "sandbox-docker"  # type: ignore[assignment]
    settings: ContainerSettings

    @classmethod
    def of(
        cls, state: sdk.DockerSandboxSessionState, settings: ContainerSettings
    ) -> DockerSandboxSessionState:
        """Return the state of a new session, with its settings."""
        kept = {name: getattr(state, name) for name in type(state).model_fields if name != "type"}
        return cls(**kept, settings=settings)


def settings_of(described: object) -> ContainerSettings | None:
    """Return the settings in options or a state of this module's classes; otherwise None."""
    if isinstance(described, (DockerSandboxClientOptions, DockerSandboxSessionState)):
        return described.settings
    return None
