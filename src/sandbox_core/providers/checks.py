"""Checks a loaded provider for errors that a type checker would have found.

A mistake makes the provider unusable; a shortcoming is only a warning.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import SecretBytes, SecretStr

from sandbox_core.providers.contract import CAPABILITIES, SupportsDestroy, SupportsIdentity

if TYPE_CHECKING:
    from sandbox_core.providers.registry import Provider

_SECRETS = (SecretStr, SecretBytes)


def mistakes_of(provider: Provider) -> Iterator[str]:
    """Yield reasons why the provider cannot be used, each the end of a sentence about it."""
    from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions

    options = provider.options_type
    if not isinstance(options, type) or not issubclass(options, BaseSandboxClientOptions):
        yield f"sets options_type to {options!r}, not a subclass of BaseSandboxClientOptions."
    if inspect.iscoroutinefunction(provider.create_client):
        yield (
            "has an asynchronous create_client. It must be an ordinary function that returns the "
            "client; await in the client's operations instead."
        )


def shortcomings_of(provider: Provider) -> Iterator[str]:
    """Yield what does not work, each the end of a sentence about the provider."""
    for ability, methods in methods_of_abilities().items():
        present = [name for name in methods if callable(getattr(provider, name, None))]
        missing = [name for name in methods if name not in present]
        if present and missing:
            yield (
                f"implements {_listed(present)} of the ability {ability!r}, but not "
                f"{_listed(missing)}: the ability is ignored."
            )
        for name in present:
            yield from _problem_of_method(provider, name, methods[name])
    if isinstance(provider, CAPABILITIES["relabel"]) and not isinstance(
        provider, CAPABILITIES["labels"]
    ):
        yield "changes labels, but does not set any: relabel needs labelled and find."
    if isinstance(provider, CAPABILITIES["labels"]):
        needed = {"destroy": SupportsDestroy, "identity": SupportsIdentity}
        lacking = [name for name, kind in needed.items() if not isinstance(provider, kind)]
        if lacking:
            yield (
                f"labels its sandboxes, but has no {_listed(lacking)}: the sandbox of a killed "
                f"create cannot be deleted."
            )
    for name, field in provider.options_type.model_fields.items():
        if any(secret.__name__ in str(field.annotation) for secret in _SECRETS):
            yield (
                f"has a secret option {name!r}. It would arrive as '**********', and secrets must "
                f"not be in workflow histories: read credentials in create_client, from the "
                f"worker's environment."
            )


def methods_of_abilities() -> Mapping[str, Mapping[str, Callable[..., object]]]:
    """Return the methods of each ability's protocol, by name."""
    return {
        ability: {
            name: method
            for name, method in vars(protocol).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }
        for ability, protocol in CAPABILITIES.items()
    }


def _problem_of_method(
    provider: Provider, name: str, promised: Callable[..., object]
) -> Iterator[str]:
    method = getattr(provider, name)
    wanted = inspect.iscoroutinefunction(promised)
    if inspect.isfunction(getattr(method, "__func__", None)) and (
        inspect.iscoroutinefunction(method) is not wanted
    ):
        kind = "async def" if wanted else "def"
        yield f"has a method {name!r} that is not `{kind}`, as the contract requires."
    _, *promised_parameters = inspect.signature(promised).parameters.values()
    named = [each.name for each in promised_parameters if each.kind is each.KEYWORD_ONLY]
    arguments = [each.name for each in promised_parameters if each.name not in named]
    try:
        inspect.signature(method).bind(*arguments, **dict.fromkeys(named))
    except TypeError:
        takes = [*arguments, *(["*", *named] if named else [])]
        yield f"has a method {name!r} that does not take ({', '.join(takes)})."
    except ValueError:
        return  # Python cannot determine its signature.


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
