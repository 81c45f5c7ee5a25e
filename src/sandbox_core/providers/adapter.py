"""Makes a provider of any `BaseSandboxClient`, in one call."""

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
_LABELS = ("labelled", "find")

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
    """Return a provider for an existing client.

    Pass it to a worker directly, without a distribution::

        SandboxPlugin(providers=[client_provider("acme", AcmeClient, AcmeOptions)])

    or return it from the hook in a plugin's module, which the entry point names::

        @hookimpl
        def sandbox_client_provider():
            return client_provider(
                "acme", "acme.client:AcmeClient", AcmeOptions, identity="sandbox_id"
            )

    The provider has only the abilities passed here; `sandbox-core check` says what is missing.

    Args:
        name: The provider's name, as `SandboxClientProvider.name`.
        client: A factory, such as the client's class, called when a worker starts; or
            ``"module:attribute"``, which delays the import of the vendor's SDK until then.
        options: The client's options class.
        summary: One line for `sandbox-core providers`.
        default_options: Makes the options for a create without options; by default `options()`.
        identity: Returns the backend's id for a session state, or the name of the state's field
            that holds it.
        exists: See `SupportsExists`.
        destroy: See `SupportsDestroy`.
        check: See `SupportsCheck`.
        labelled: See `SupportsLabels`; requires `find`.
        find: See `SupportsLabels`.
        relabel: See `SupportsRelabel`; requires `labelled`.
        host_bound: See `SandboxClientProvider.host_bound`.
        durable_processes: See `SandboxClientProvider.durable_processes`.

    Raises:
        InvalidProviderName: `name` is not a valid provider name.
        ProviderLoad: Only one of `labelled` and `find` was passed, or `relabel` without them.
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
    if missing and (len(missing) < len(_LABELS) or relabel is not None):
        raise ProviderLoad(
            f"client_provider({name!r}) lacks {' and '.join(missing)}: labels need both of "
            f"{', '.join(_LABELS)}, and relabel needs labels."
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
    """The base of the providers that `client_provider` makes."""

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
                f"provider {self.name!r} cannot import its client {self._client!r}, which must be "
                f"'module:attribute': {error}."
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
