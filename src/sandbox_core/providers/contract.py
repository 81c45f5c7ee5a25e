"""What a provider is: the class that a plugin implements, and the optional abilities.

An ability is a small protocol of its own. A provider has it by having its methods; the core works
without any of them, and `sandbox-core providers` shows which are there.
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
"""The version of the contract in this module; a provider names the one it was written against."""

OptionsT_co = TypeVar("OptionsT_co", bound="BaseSandboxClientOptions", covariant=True)
_ClientT = TypeVar("_ClientT", contravariant=True)
_SameClientT = TypeVar("_SameClientT")


class SandboxClientProvider(abc.ABC, Generic[OptionsT_co]):
    """One sandbox backend, as a plugin offers it to workers.

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

    The module is imported by every worker, also by one that only runs workflows: the options and
    the session state register themselves with the Agents SDK when they are imported, so define
    both in a module that this one imports. Import the vendor's SDK in `create_client`, which is
    called only where activities run.
    """

    name: str
    """Equal to the entry point's name; recorded in histories, so it never changes."""

    summary: str
    """One line for `sandbox-core providers`."""

    api_version: int
    """The `CONTRACT_VERSION` that the provider was written against."""

    options_type: type[OptionsT_co]
    """The class of the SDK's client options that this backend takes."""

    host_bound: bool = False
    """Whether the sandbox lives on the worker's host: a local directory, a local container."""

    durable_processes: bool = True
    """Whether commands may run under a helper process of sandbox-core's in the sandbox.

    A command then runs exactly once whatever becomes of its worker, and a process that is polled
    may be so by any worker. Set it to False where a process does not outlive the call that started
    it, or where calls share no file system: commands are then run by the backend's own call, at
    most once. A sandbox in which the helper cannot run is noticed, and treated so, anyway.
    """

    @abc.abstractmethod
    def create_client(
        self,
    ) -> BaseSandboxClient[OptionsT_co] | BaseSandboxClient[OptionsT_co | None]:
        """Return the backend's client; credentials are read here, from the worker's environment.

        Called once per worker, before it polls, and given a minute: an ordinary function, in a
        thread that finds the worker's event loop running.

        Raises:
            Exception: The backend cannot be used; the message reaches whoever uses the provider.
        """

    def default_options(self) -> OptionsT_co:
        """Return the options of a create that names none.

        Raises:
            ValueError: The backend has no default; options are required.
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
    """The backend can be asked whether a sandbox exists."""

    async def exists(self, client: _ClientT, sandbox_id: str) -> bool:
        """Return whether the sandbox with this `identity` exists.

        Raises:
            Exception: The backend did not answer. That is not the same as "no".
        """
        ...


@runtime_checkable
class SupportsDestroy(Protocol[_ClientT]):
    """A sandbox can be deleted by its id, without resuming it."""

    async def destroy(self, client: _ClientT, sandbox_id: str) -> None:
        """Delete the sandbox with this `identity`; one that does not exist is no error."""
        ...


@dataclass(frozen=True, kw_only=True)
class LabelledSandbox:
    """A sandbox that the backend has, as `SupportsLabels.find` reports it."""

    sandbox_id: str
    """Its `identity`."""

    labels: Mapping[str, str]
    """Its labels; the backend may add others."""

    created: datetime | None = None
    """When it was made, with a time zone, if the backend says."""


@runtime_checkable
class SupportsLabels(Protocol[_SameClientT]):
    """Sandboxes carry labels that the backend keeps and can be searched for.

    sandbox-core labels a sandbox with the workflow that owns it and with the request that it was
    made for. A create whose answer was lost is then found by the next attempt, whichever worker
    makes it, and `sandbox-core reap` finds the sandboxes whose workflows are closed. Needs
    `SupportsDestroy`.

    Names and values of labels are text: names of lower-case letters, digits, ``.`` and ``-``;
    values of up to a thousand characters, as long as a workflow id may be.
    """

    def labelled(self, client: _SameClientT, labels: Mapping[str, str]) -> _SameClientT:
        """Return a client like `client` that puts `labels` on every sandbox it makes.

        That is what `create` makes, and the replacements that `resume` and a session's `start`
        make. A sandbox has its labels from the moment it exists. The result shares the connections
        of `client`, is used for one session, and is not closed.
        """
        ...

    async def find(
        self, client: _SameClientT, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        """Return the sandboxes that have all of these labels, also those that do not run.

        Raises:
            Exception: The backend did not answer. That is not the same as "none".
        """
        ...

    async def relabel(
        self, client: _SameClientT, sandbox_id: str, labels: Mapping[str, str]
    ) -> None:
        """Set labels of a sandbox that exists, beside those that it has: its owner has changed."""
        ...


@runtime_checkable
class SupportsCheck(Protocol[_ClientT]):
    """The backend can be checked before anything is created."""

    async def check(self, client: _ClientT) -> None:
        """Return if the backend can be reached and accepts the credentials.

        Raises:
            Exception: It cannot or does not; the message says why.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class HostProcess:
    """What a backend would execute on the worker's host for a command."""

    argv: Sequence[str]
    cwd: str
    environment: Mapping[str, str]


@runtime_checkable
class SupportsHostProcesses(Protocol):
    """Commands are processes of the worker's host, in its own file system.

    sandbox-core then starts them without a process of its own for each: what runs is what the
    backend would execute, in a session and a process group of its own, with the worker's limits and
    umask, ``/dev/null`` as its stdin, and no other descriptors.

    The provider's `identity` is the path of the workspace: what runs for it is ended before the
    sandbox is destroyed.
    """

    async def host_process(
        self, session: BaseSandboxSession, command: Sequence[str]
    ) -> HostProcess:
        """Return what the backend would execute for `command`, a program and its arguments.

        Raises:
            SandboxError: It would not, for example because the workspace is gone.
        """
        ...


CAPABILITIES: Mapping[str, type] = {
    "identity": SupportsIdentity,
    "exists": SupportsExists,
    "destroy": SupportsDestroy,
    "labels": SupportsLabels,
    "check": SupportsCheck,
    "host processes": SupportsHostProcesses,
}
"""The optional abilities by the name under which `sandbox-core providers` shows them."""
