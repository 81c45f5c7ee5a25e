"""Options with what the Agents SDK's lack: limits, a runtime, a read-only root, a user."""

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
    """How a container is restricted; None leaves a setting to the engine."""

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
            # The second is memory and swap together: without it, half as much again is swapped.
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
            # Volumes without a name are removed with the container. Not tmpfs: saving a workspace
            # needs as much room in /tmp as the workspace has, and that would be memory.
            arguments |= {"read_only": True, "volumes": [workspace, "/tmp", "/var/tmp"]}  # noqa: S108 - of the container
        return arguments


class DockerSandboxClientOptions(StrictOptions, sdk.DockerSandboxClientOptions, ContainerSettings):
    """The Agents SDK's options of the same name, with what restricts a container.

    Args:
        image: As in the SDK's class, like `exposed_ports`, `network_mode` and `labels`.
        memory_mb: MiB that all processes may use, /tmp and swap excluded; a process that would need
            more is killed.
        cpus: How many CPUs all processes together may keep busy, such as 1.5.
        processes: How many processes and threads there may be at once.
        runtime: A runtime that the engine was configured with: ``"runsc"`` is gVisor,
            ``"kata"`` or ``"io.containerd.kata.v2"`` Kata Containers.
        read_only: Whether only the workspace, /tmp and /var/tmp can be written to.
        user: Who commands run as, ``"name"``, ``"uid"`` or ``"uid:gid"``; the workspace is theirs.

    Raises:
        InvalidOptions: A value is out of range.
    """

    # The SDK's class is registered for "docker", and each class needs a type of its own.
    type: Literal["sandbox-docker"] = "sandbox-docker"  # type: ignore[assignment]

    def __init__(
        self,
        image: str,
        exposed_ports: tuple[int, ...] = (),
        *,
        type: Literal["sandbox-docker"] = "sandbox-docker",  # noqa: A002 - the SDK's name
        network_mode: Literal["none"] | None = None,
        labels: dict[str, str] | None = None,
        memory_mb: int | None = None,
        cpus: float | None = None,
        processes: int | None = None,
        runtime: str | None = None,
        read_only: bool = False,
        user: str | None = None,
    ) -> None:
        # Not by the SDK's class, whose own arguments are all that it takes.
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
        """How the container is restricted."""
        return ContainerSettings(
            **{name: getattr(self, name) for name in ContainerSettings.model_fields}
        )


class DockerSandboxSessionState(sdk.DockerSandboxSessionState):
    """The SDK's state of a session whose container is restricted, as its replacement will be."""

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
    """Return the settings of options or of a state, if they are of a class of this module."""
    if isinstance(described, (DockerSandboxClientOptions, DockerSandboxSessionState)):
        return described.settings
    return None
