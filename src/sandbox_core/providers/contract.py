"""The provider contract: the class that a plugin implements, and optional abilities.

Each ability is a small protocol; a provider has it by implementing the methods. The core works
without any of them, and `sandbox-core providers` shows which ones are present.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
    from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
    from agents.sandbox.session.sandbox_session_state import SandboxSessionState

CONTRACT_VERSION = 1
"""The version of this contract; a provider declares the version it implements."""

OptionsT_co = TypeVar("OptionsT_co", bound="BaseSandboxClientOptions", covariant=True)
_ClientT = TypeVar("_ClientT", contravariant=True)
_SameClientT = TypeVar("_SameClientT")


class SandboxClientProvider(abc.ABC, Generic[OptionsT_co]):
    """One sandbox backend, offered to workers by a plugin.

    A complete plugin is a distribution with this module and one entry point::

        # src/acme_sandbox/__init__.py
        from sandbox_core.providers import SandboxClientProvider, hookimpl
        from acme_sandbox.models import AcmeOptions, AcmeSessionState

        class AcmeProvider(SandboxClientProvider[AcmeOptions]):
            name = "acme"
            summary = "Sandboxes at Acme"
            api_version = 1
            options_type = AcmeOptions

            def create_client(self):
                from acme_sandbox.client import AcmeSandboxClient  # imports the vendor's SDK
                return AcmeSandboxClient()

        @hookimpl
        def sandbox_client_provider():
            return AcmeProvider()

        # pyproject.toml
        [project.entry-points."sandbox_core.providers"]
        acme = "acme_sandbox"

    Every worker imports the module, including workers that only run workflows: the options and the
    session state register themselves with the Agents SDK on import, so define both in a module that
    this one imports. Import the vendor's SDK in `create_client`, which is called only where
    activities run.
    """

    name: str
    """The entry point's name; recorded in histories, so it must never change."""

    summary: str
    """One line for `sandbox-core providers`."""

    api_version: int
    """The `CONTRACT_VERSION` that the provider implements."""

    options_type: type[OptionsT_co]
    """The backend's client options class."""

    host_bound: bool = False
    """Whether sandboxes live on the worker's host, such as local directories or containers."""

    durable_processes: bool = True
    """Whether commands may run under sandbox-core's helper process in the sandbox.

    With the helper, a command runs exactly once even if its worker dies, and any worker can poll
    it. Set this to False if processes do not outlive the call that started them, or if calls do
    not share a file system: commands then run through the backend's own call, at most once. The
    same applies automatically where the helper cannot run.
    """

    @abc.abstractmethod
    def create_client(
        self,
    ) -> BaseSandboxClient[OptionsT_co] | BaseSandboxClient[OptionsT_co | None]:
        """Return the backend's client; read credentials here, from the worker's environment.

        Called once per worker before it polls, in a thread, with the worker's event loop set as the
        running loop. It must return within a minute.

        Raises:
            Exception: The backend cannot be used; the message is shown to users of the provider.
        """

    def default_options(self) -> OptionsT_co:
        """Return the options for a create without options.

        Raises:
            ValueError: The backend has no defaults; options are required.
        """
        return self.options_type()


@runtime_checkable
class SupportsIdentity(Protocol):
    """The sandbox of a session state has an id at the backend.

    With it a resume notices that it got another sandbox than the one it asked for.
    """

    def identity(self, state: SandboxSessionState) -> str:
        """Return the backend's id of the sandbox that `state` refers to."""
        ...


@runtime_checkable
class SupportsExists(Protocol[_ClientT]):
    """The backend can tell whether a sandbox exists."""

    async def exists(self, client: _ClientT, sandbox_id: str) -> bool:
        """Return whether the sandbox with this `identity` exists.

        Raises:
            Exception: The backend did not answer. That is not the same as "no".
        """
        ...


@runtime_checkable
class SupportsDestroy(Protocol[_ClientT]):
    """The backend can delete a sandbox by its id, without resuming it."""

    async def destroy(self, client: _ClientT, sandbox_id: str) -> None:
        """Delete the sandbox with this `identity`; a missing sandbox is not an error."""
        ...


@dataclass(frozen=True, kw_only=True)
class LabelledSandbox:
    """An existing sandbox, as reported by `SupportsLabels.find`."""

    sandbox_id: str
    """Its `identity`."""

    labels: Mapping[str, str]
    """Its labels; the backend may add its own."""

    created: datetime | None = None
    """Its creation time, timezone-aware, if the backend reports it."""


@runtime_checkable
class SupportsLabels(Protocol[_SameClientT]):
    """Sandboxes carry labels by which the backend can find them.

    sandbox-core labels each sandbox with its owning workflow and the request that created it. The
    next attempt at a create whose answer was lost then finds the sandbox, on any worker. With
    `SupportsRelabel`, `sandbox-core reap` finds sandboxes of closed workflows. Requires
    `SupportsDestroy`.

    Label names consist of lower-case letters, digits, ``.`` and ``-``; values are text of up to a
    thousand characters, the length of a workflow id.
    """

    def labelled(self, client: _SameClientT, labels: Mapping[str, str]) -> _SameClientT:
        """Return a client like `client` that puts `labels` on every sandbox it creates.

        This includes the replacements that `resume` and a session's `start` create. A sandbox must
        have its labels from the moment it exists. The returned client shares the connections of
        `client`, is used for one session, and is never closed.
        """
        ...

    async def find(
        self, client: _SameClientT, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return the sandboxes that have all of these labels, including stopped ones.

        Raises:
            Exception: The backend did not answer. That is not the same as "none".
        """
        ...


@runtime_checkable
class SupportsRelabel(Protocol[_ClientT]):
    """The labels of an existing sandbox can be changed; requires `SupportsLabels`.

    A sandbox that another workflow takes over then names its new owner. Without this, it would go
    on naming the old one, so `sandbox-core reap` leaves all sandboxes of the provider alone.
    """

    async def relabel(self, client: _ClientT, sandbox_id: str, labels: Mapping[str, str]) -> None:
        """Add or replace labels of an existing sandbox; called when its owner changes."""
        ...


@runtime_checkable
class SupportsCheck(Protocol[_ClientT]):
    """The backend can be checked before a sandbox is created."""

    async def check(self, client: _ClientT) -> None:
        """Return if the backend can be reached and accepts the credentials.

        Raises:
            Exception: It cannot be used; the message says why.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class HostProcess:
    """The process that a backend would execute on the worker's host for a command."""

    argv: Sequence[str]
    cwd: str
    environment: Mapping[str, str]


@runtime_checkable
class SupportsHostProcesses(Protocol):
    """Commands are processes of the worker's host, in its own file system.

    sandbox-core then starts them directly, without a wrapper process for each: the process that the
    backend would execute, in its own session and process group, with the worker's limits and umask,
    ``/dev/null`` as stdin, and no other descriptors.

    The provider's `identity` must be the path of the workspace: its processes are ended before the
    sandbox is destroyed.
    """

    async def host_process(
        self, session: BaseSandboxSession, command: Sequence[str]
    ) -> HostProcess:
        """Return the process for `command`, a program and its arguments.

        Raises:
            SandboxError: The command cannot be executed, for example because the workspace is gone.
        """
        ...


class ProcessStream(Protocol):
    """A connection to the stdin and stdout of one process in a sandbox.

    Bytes arrive unaltered and in order, as soon as they are written. What is not read by one side
    makes the other one wait, instead of being kept without limit.
    """

    async def send(self, data: bytes) -> None:
        """Write all of `data` to the process's stdin; calls do not overlap.

        Raises:
            Exception: The connection is lost.
        """
        ...

    async def receive(self) -> bytes:
        """Return the next bytes of its stdout, at least one; none at the end; calls do not overlap.

        Raises:
            Exception: The connection is lost.
        """
        ...

    async def send_eof(self) -> None:
        """Close the process's stdin; its stdout can still be received."""
        ...

    async def aclose(self) -> None:
        """Close the connection now, and thereby the process's stdin; may be called repeatedly.

        The same must happen if the worker is killed: the process ends when its stdin does.
        """
        ...


@runtime_checkable
class SupportsProcessStreams(Protocol):
    """The backend can connect to the stdin and stdout of a process that it starts.

    sandbox-core then keeps a process of its helper's in a sandbox while commands run there, and
    asks it over this connection, instead of calling the session's `exec` for each command.
    """

    async def open_stream(
        self, session: BaseSandboxSession, command: Sequence[str], *, user: str | None
    ) -> ProcessStream:
        """Start a process as ``session.exec(*command, shell=False, user=user)`` would.

        Its stderr may be dropped. If the process does not start, the stream ends.

        Raises:
            NotImplementedError: There are no streams for this session, and will be none.
            SandboxError: The backend failed.
        """
        ...


CAPABILITIES: Mapping[str, type] = {
    "identity": SupportsIdentity,
    "exists": SupportsExists,
    "destroy": SupportsDestroy,
    "labels": SupportsLabels,
    "relabel": SupportsRelabel,
    "check": SupportsCheck,
    "host processes": SupportsHostProcesses,
    "process streams": SupportsProcessStreams,
}
"""The optional abilities, by the names that `sandbox-core providers` shows."""

LOST_WITHOUT: Mapping[str, str] = {
    "identity": "a resume that got another sandbox goes unnoticed, and the agent continues in an "
    "empty workspace",
    "exists": "only a resume can tell whether a sandbox still exists, and may create another one",
    "destroy": "deleting a sandbox means resuming it first, and `sandbox-core reap` cannot be used",
    "labels": "an interrupted create may leave a sandbox that nobody finds, and `sandbox-core "
    "reap` cannot be used",
    "relabel": "`sandbox-core reap` cannot be used, so orphans remain and cost money",
    "check": "`sandbox-core providers --check` cannot tell whether the backend is usable",
}
"""What users lose without an ability.

Without host processes or process streams, a command only takes longer.
"""
