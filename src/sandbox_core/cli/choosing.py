"""Chooses the installed providers that a command can use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from sandbox_core.config import load_configuration
from sandbox_core.errors import ProviderError, UnknownProvider
from sandbox_core.providers import (
    FailedProvider,
    LoadedProvider,
    Provider,
    SupportsDestroy,
    SupportsLabels,
    discover,
    load,
)
from sandbox_core.providers.discovery import select
from sandbox_core.wire.published import how_to_install
from sandbox_core.worker.reaping.reaper import NEEDED, Reapable, as_reapable


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a command does with a provider, and how messages say it."""

    able: Callable[[Provider], Reapable | None]
    """Returns the provider if it has the abilities for it."""

    needed: str
    otherwise: str
    done: str


def _as_listable(provider: Provider) -> Reapable | None:
    able = isinstance(provider, SupportsLabels) and isinstance(provider, SupportsDestroy)
    return cast("Reapable", provider) if able else None


REAPING = Use(
    able=as_reapable,
    needed=NEEDED,
    otherwise="orphans cannot be determined",
    done="reaped",
)
LISTING = Use(
    able=_as_listable,
    needed="label sandboxes and destroy them by their id",
    otherwise="sandboxes cannot be found",
    done="asked",
)


def choose_providers(names: Sequence[str], use: Use) -> Mapping[str, Reapable | str]:
    """Return the named providers or, without names, all that can be used so.

    The value of a provider that does not load is the reason.

    Raises:
        ProviderError: A named provider is not installed, does not load, or cannot be used so; or
            none can.
    """
    installed = {
        result.name if isinstance(result, FailedProvider) else result.provider.name: result
        for result in load(select(discover(), load_configuration()).enabled)
    }
    able = {
        name: usable
        for name, result in installed.items()
        if isinstance(result, LoadedProvider) and (usable := use.able(result.provider))
    }
    for name in names:
        if name not in able:
            raise _unusable(name, installed.get(name), ", ".join(able) or "none", use)
    if names:
        return {name: able[name] for name in names}
    failed = {
        name: result.error.message
        for name, result in installed.items()
        if isinstance(result, FailedProvider)
    }
    if not able and not failed:
        raise ProviderError(
            f"no provider that is installed here can {use.needed}, so {use.otherwise}. Installed: "
            f"{', '.join(installed) or 'none'}."
        )
    return {**able, **failed}


def _unusable(
    name: str, result: LoadedProvider | FailedProvider | None, able: str, use: Use
) -> ProviderError:
    if isinstance(result, FailedProvider):
        return result.error
    if result is None:
        return UnknownProvider(
            f"provider {name!r} is not installed here, or turned off. Those that can be "
            f"{use.done}: {able}. Install it: {how_to_install(name)}"
        )
    return ProviderError(
        f"provider {name!r} cannot {use.needed}, so its {use.otherwise}. "
        f"Those that can be {use.done}: {able}."
    )
