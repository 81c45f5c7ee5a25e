"""Loads providers: imports each module, calls its hook, and checks the provider that it returns.

A provider that does not load never takes the worker down: its error is logged, shown by
`sandbox-core providers`, and raised in every workflow that uses the provider. Only a provider that
is required by name fails the worker. Workers then activate the loaded providers.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import pluggy

from sandbox_core.errors import (
    DuplicateProvider,
    IncompatibleProvider,
    ProviderError,
    ProviderLoad,
)
from sandbox_core.providers import hooks
from sandbox_core.providers.checks import mistakes_of, shortcomings_of
from sandbox_core.providers.clashes import (
    is_sdk,
    qualified_name,
    state_clashes,
    unregistered_states,
)
from sandbox_core.providers.contract import CONTRACT_VERSION, SandboxClientProvider
from sandbox_core.providers.discovery import DISABLED_VARIABLE, Candidate
from sandbox_core.wire.naming import check_provider_name

if TYPE_CHECKING:
    from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions

Provider: TypeAlias = "SandboxClientProvider[BaseSandboxClientOptions]"

_HOOK = hooks.sandbox_client_provider.__name__
_REQUIRED_ATTRIBUTES = ("name", "summary", "api_version", "options_type")


@dataclass(frozen=True, kw_only=True)
class LoadedProvider:
    """A provider and its distribution."""

    provider: Provider
    candidate: Candidate
    shortcomings: tuple[str, ...] = ()
    """What does not work, one sentence each."""


@dataclass(frozen=True, kw_only=True)
class FailedProvider:
    """A provider name that cannot be used, the distributions that claim it, and the error."""

    name: str
    candidates: tuple[Candidate, ...]
    error: ProviderError


def load(candidates: Iterable[Candidate]) -> list[LoadedProvider | FailedProvider]:
    """Import the providers and their models and check them; returns one result per name.

    Never raises because of a provider: errors are returned as `FailedProvider` or in
    `shortcomings`.
    """
    _import_sdk()
    results: list[LoadedProvider | FailedProvider] = []
    for name, group in groupby(candidates, key=lambda candidate: candidate.name):
        claims = tuple(group)
        try:
            check_provider_name(name)
            if len(claims) > 1:
                raise DuplicateProvider(
                    f"provider {name!r} is claimed by {' and by '.join(map(str, claims))}. The "
                    f"name is recorded in workflow histories, so the order of installation must "
                    f"not decide: uninstall all but one of them."
                )
            provider = _load(claims[0])
        except ProviderError as error:
            results.append(FailedProvider(name=name, candidates=claims, error=error))
        else:
            shortcomings = (f"{_which(claims[0])} {each}" for each in shortcomings_of(provider))
            results.append(
                LoadedProvider(
                    provider=provider, candidate=claims[0], shortcomings=tuple(shortcomings)
                )
            )
    return [_without_clash(result, results) for result in results]


def _import_sdk() -> None:
    # Imported first, so that a provider that clashes with the SDK's own models is what fails.
    with suppress(ImportError):
        importlib.import_module("agents.sandbox.sandboxes.unix_local")


def _without_clash(
    result: LoadedProvider | FailedProvider, results: Sequence[LoadedProvider | FailedProvider]
) -> LoadedProvider | FailedProvider:
    """Return `result`, or an error if its session state's name is claimed by another class."""
    if isinstance(result, FailedProvider):
        return result
    own = result.candidate.package
    for name, classes in state_clashes().items():
        if is_sdk(classes[0]):
            classes[0].__pydantic_init_subclass__()  # Register the SDK's own class again.
        if any(_package_of(cls) == own for cls in classes):
            claims = (f"{qualified_name(cls)} ({_owner(cls, results)})" for cls in classes)
            error = ProviderLoad(
                f"{_which(result.candidate)} has a session state of type {name!r}, which another "
                f"distribution claims too: {' and '.join(claims)}. The type is recorded in "
                f"workflow histories, so its author must choose a unique one, such as "
                f"{result.candidate.name!r}. Until then, disable one of them with "
                f"{DISABLED_VARIABLE}."
            )
            return FailedProvider(
                name=result.provider.name, candidates=(result.candidate,), error=error
            )
    unregistered = unregistered_states(own)
    if not unregistered:
        return result
    more = tuple(
        f"{_which(result.candidate)} has a session state {qualified_name(cls)} without `type: "
        f'Literal["..."] = "..."`: the Agents SDK does not register it, so no workflow can read it.'
        for cls in unregistered
    )
    return replace(result, shortcomings=result.shortcomings + more)


def _owner(cls: type, results: Sequence[LoadedProvider | FailedProvider]) -> str:
    if is_sdk(cls):
        return "the Agents SDK"
    candidates = (
        result.candidates if isinstance(result, FailedProvider) else (result.candidate,)
        for result in results
    )
    owners = (c for group in candidates for c in group if c.package == _package_of(cls))
    return str(next(owners, "of no provider"))


def _package_of(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _load(candidate: Candidate) -> Provider:
    provider = _provider_of(candidate, _import(candidate))
    version = _get(candidate, provider, "api_version")
    if version is not None and not isinstance(version, int):
        raise ProviderLoad(
            f"{_which(candidate)} sets api_version to {version!r}, which is not an integer."
        )
    if version is not None and version > CONTRACT_VERSION:
        raise IncompatibleProvider(
            f"{_which(candidate)} needs version {version} of the provider contract; "
            f"this sandbox-core supports {CONTRACT_VERSION}. Upgrade it (pip install --upgrade "
            f"sandbox-core) or install an older {candidate.distribution}."
        )
    missing = [key for key in _REQUIRED_ATTRIBUTES if _get(candidate, provider, key) is None]
    if missing:
        raise ProviderLoad(
            f"{_which(candidate)} does not set {', '.join(missing)} on {_class_of(provider)}; see "
            f"sandbox_core.providers.SandboxClientProvider."
        )
    if provider.name != candidate.name:
        raise ProviderLoad(
            f"{_which(candidate)} calls itself {provider.name!r}. The entry point's and the "
            f"provider's name must be equal: it is recorded in workflow histories."
        )
    for mistake in mistakes_of(provider):
        raise ProviderLoad(f"{_which(candidate)} {mistake}")
    return provider


def _import(candidate: Candidate) -> ModuleType:
    if ":" in candidate.module:
        raise ProviderLoad(
            f"{_which(candidate)} has an entry point with a ':'. It must name only the module "
            f"that contains the hook {_HOOK!r}."
        )
    try:
        return importlib.import_module(candidate.module)
    except (Exception, SystemExit) as error:  # A plugin boundary: its module may raise anything.
        path = candidate.editable_path
        if path is not None and not path.exists():
            advice = (
                f"It is an editable install of {path}, which no longer exists: reinstall or "
                f"uninstall {candidate.distribution}."
            )
        else:
            advice = (
                f"Reinstall it with its dependencies (pip install --upgrade "
                f"{candidate.distribution}), or disable it with {DISABLED_VARIABLE}="
                f"{candidate.name}."
            )
        raise ProviderLoad(
            f"{_which(candidate)} cannot be imported: {_cause(error)}. "
            f"{_clash_of_options(error) or advice}"
        ) from error


def _clash_of_options(error: BaseException) -> str | None:
    """Return advice if the import failed because its options type is already registered."""
    found = re.search(r"options type `(.+)` is already registered by", str(error))
    if not isinstance(error, TypeError) or found is None:
        return None
    registered = (cls for cls in _option_types() if cls.model_fields["type"].default == found[1])
    other = next(registered, None)
    where = "another distribution" if other is None else f"module {other.__module__}"
    return (
        f"The type is that of {where}. It is recorded in workflow histories, so its author must "
        f"choose a unique one. Until then, disable one of them with {DISABLED_VARIABLE}."
    )


def _option_types() -> list[type[BaseSandboxClientOptions]]:
    from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions

    return BaseSandboxClientOptions.__subclasses__()


def _provider_of(candidate: Candidate, module: ModuleType) -> Provider:
    # One manager per plugin: plugins cannot disturb each other, and each error has one author.
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    try:
        manager.register(module, name=candidate.name)
    except pluggy.PluginValidationError as error:
        raise ProviderLoad(
            f"{_which(candidate)} implements the hook {_HOOK!r} wrongly: it takes no arguments."
        ) from error
    unknown = sorted(h.name for h in manager.get_hookcallers(module) or () if not h.has_spec())
    if unknown:
        raise ProviderLoad(
            f"{_which(candidate)} implements {', '.join(map(repr, unknown))}, which is not a hook "
            f"of sandbox-core: the hook is called {_HOOK!r}."
        )
    try:
        provided = manager.hook.sandbox_client_provider()
    except (Exception, SystemExit) as error:  # A plugin boundary: its hook may raise anything.
        raise ProviderLoad(
            f"{_which(candidate)} failed in its hook {_HOOK!r}: {_cause(error)}."
        ) from error
    if not provided:
        raise ProviderLoad(
            f"{_which(candidate)} provides nothing: its module needs a function {_HOOK!r} marked "
            f"with @sandbox_core.providers.hookimpl that returns the provider."
        )
    provider = provided[0]
    if not isinstance(provider, SandboxClientProvider):
        raise ProviderLoad(
            f"{_which(candidate)} returned {_described(provider)} from its hook {_HOOK!r}. It must "
            f"return an instance of a subclass of sandbox_core.providers.SandboxClientProvider."
        )
    return provider


def _get(candidate: Candidate, provider: Provider, attribute: str) -> object:
    try:
        return getattr(provider, attribute, None)
    except Exception as error:  # A plugin boundary: the attribute may be a property.
        raise ProviderLoad(
            f"{_which(candidate)} failed when asked for {attribute}: {_cause(error)}."
        ) from error


def _which(candidate: Candidate) -> str:
    return f"provider {candidate.name!r} ({candidate}, module {candidate.module})"


def _described(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__module__}.{value.__qualname__} itself"
    if inspect.iscoroutine(value):
        value.close()
        return "a coroutine (it is `async def`)"
    return f"an object of class {_class_of(value)}"


def _class_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(".: ")
