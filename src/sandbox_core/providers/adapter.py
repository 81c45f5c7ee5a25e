"""Any `BaseSandboxClient` of the Agents SDK as a provider, in one call."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from sandbox_core.errors import ProviderLoad
from sandbox_core.providers.contract import (
    CONTRACT_VERSION,
    LabelledSandbox,
    SandboxClientProvider,
)
from sandbox_core.wire.naming import check_provider_name

if TYPE_CHECKING:
    from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
    from agents.sandbox.session.sandbox_session_state import SandboxSessionState

_ClientT = TypeVar("_ClientT", bound="BaseSandboxClient[Any]")
_OptionsT = TypeVar("_OptionsT", bound="BaseSandboxClientOptions")
_LABELS = ("labelled", "find", "relabel")

Labels: TypeAlias = Mapping[str, str]


def client_provider(
    name: str,
    client: Callable[[], _ClientT] | str,
    options: type[_OptionsT],
    *,
    summary: str | None = None,
    default_options: Callable[[], _OptionsT] | None = None,
    identity: Callable[[SandboxSessionState], str] | str | None = None,
    exists: Callable[[_ClientT, str], Awaitable[bool]] | None = None,
    destroy: Callable[[_ClientT, str], Awaitable[None]] | None = None,
    check: Callable[[_ClientT], Awaitable[None]] | None = None,
    labelled: Callable[[_ClientT, Labels], _ClientT] | None = None,
    find: Callable[[_ClientT, Labels], Awaitable[Sequence[LabelledSandbox]]] | None = None,
    relabel: Callable[[_ClientT, str, Labels], Awaitable[None]] | None = None,
    host_bound: bool = False,
    durable_processes: bool = True,
) -> SandboxClientProvider[_OptionsT]:
    """Return a provider of a client that exists.

    In a worker, without any distribution::

        SandboxPlugin(providers=[client_provider("acme", AcmeClient, AcmeOptions)])

    and as the hook of a plugin's module, which the entry point names::

        @hookimpl
        def sandbox_client_provider():
            return client_provider(
                "acme", "acme.client:AcmeClient", AcmeOptions, identity="sandbox_id"
            )

    Abilities that are not given are not there; `sandbox-core check` says what that costs.

    Args:
        name: The provider's name, as `SandboxClientProvider.name`.
        client: What makes the client when a worker starts, such as its class; or where it is,
            ``"module:attribute"``, so that the vendor's SDK is imported only then.
        options: The class of the client's options.
        summary: One line for `sandbox-core providers`.
        default_options: Makes the options of a create that names none; without it, `options()`.
        identity: Returns the backend's id of a state's sandbox, or the name of the state's field
            that holds it.
        exists: See `SupportsExists`.
        destroy: See `SupportsDestroy`.
        check: See `SupportsCheck`.
        labelled: See `SupportsLabels`; it takes all three.
        find: See `SupportsLabels`.
        relabel: See `SupportsLabels`.
        host_bound: Whether the sandboxes live on the worker's host.
        durable_processes: Whether commands may be run so that they outlive the call.

    Raises:
        InvalidProviderName: `name` does not follow the rule for provider names.
        ProviderLoad: Some of the three functions of labels are given, and not all.
    """
    check_provider_name(name)
    # An asynchronous or plain function becomes the method of the same name.
    methods: dict[str, Callable[..., Any] | None] = {
        "exists": exists,
        "destroy": destroy,
        "check": check,
        "labelled": labelled,
        "find": find,
        "relabel": relabel,
        "default_options": default_options,
        "identity": _from_field(identity) if isinstance(identity, str) else identity,
    }
    given = {method: function for method, function in methods.items() if function is not None}
    missing = [each for each in _LABELS if each not in given]
    if 0 < len(missing) < len(_LABELS):
        raise ProviderLoad(
            f"client_provider({name!r}) was given functions for labels, but not "
            f"{' and '.join(missing)}: they are one ability, all three or none."
        )
    provided = type(
        "ClientProvider",
        (_ClientProvider,),
        {
            "name": name,
            "summary": summary or f"Sandboxes of {_title(client)}",
            "api_version": CONTRACT_VERSION,
            "options_type": options,
            "host_bound": host_bound,
            "durable_processes": durable_processes,
            **{method: staticmethod(function) for method, function in given.items()},
        },
    )
    return cast("SandboxClientProvider[_OptionsT]", provided(client))


class _ClientProvider(SandboxClientProvider[Any]):
    """What `client_provider` makes a subclass of, with the abilities that it was given."""

    def __init__(self, client: Callable[[], BaseSandboxClient[Any]] | str) -> None:
        self._client = client

    def create_client(self) -> BaseSandboxClient[Any]:
        """Return the client.

        Raises:
            ProviderLoad: There is no such module or attribute.
        """
        if not isinstance(self._client, str):
            return self._client()
        module, _, attribute = self._client.partition(":")
        try:
            made = getattr(importlib.import_module(module), attribute)
        except (AttributeError, ImportError, ValueError) as error:
            raise ProviderLoad(
                f"provider {self.name!r} is made of {self._client!r}, which is not there: {error}. "
                f"It has to be 'module:attribute'."
            ) from error
        return cast("BaseSandboxClient[Any]", made())


def _from_field(field: str) -> Callable[[SandboxSessionState], str]:
    def identity(state: SandboxSessionState) -> str:
        return str(getattr(state, field))

    return identity


def _title(client: Callable[[], object] | str) -> str:
    if isinstance(client, str):
        return client.rpartition(":")[2] or client
    return getattr(client, "__qualname__", "a client")
