"""The providers that a worker offers, and their settings."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import importlib_metadata

from sandbox_core.config import Configuration
from sandbox_core.errors import DuplicateProvider, ProviderLoad, UnknownProvider
from sandbox_core.providers.checks import mistakes_of, shortcomings_of
from sandbox_core.providers.discovery import discover, misspelt_groups, select
from sandbox_core.providers.registry import LoadedProvider, Provider, load
from sandbox_core.storage.snapshots import SnapshotStore
from sandbox_core.wire.naming import check_provider_name
from sandbox_core.worker.access import Authorize
from sandbox_core.worker.runtime import ProviderRuntime
from sandbox_core.worker.secrets import Allowed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """The application's own providers, and the settings of all; see `SandboxPlugin`."""

    configuration: Configuration = field(compare=False)
    providers: tuple[Provider, ...]
    local_sources: tuple[Path, ...]
    worker_env: Allowed
    max_sandboxes: Mapping[str, int]
    peer_clients: Mapping[str, str]
    snapshots: SnapshotStore = field(compare=False)
    authorize: Authorize | None
    fleet: bool
    """Whether workers on other hosts share the storage."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: A limit is less than 1, or `authorize` is combined with `peer_clients`.
        """
        if self.authorize is not None and self.peer_clients:
            raise ValueError(
                "authorize does not cover the workflows of peer_clients: give them another worker"
            )
        for name, limit in self.max_sandboxes.items():
            if limit < 1:
                raise ValueError(f"max_sandboxes[{name!r}] is {limit}; it must be 1 or more")

    @property
    def helper_off(self) -> str | None:
        """Which setting turns the helper off; None if none does."""
        is_on = self.configuration.settings.helper
        return None if is_on else f"{self.configuration.named('helper')}=off"

    def load(self) -> list[ProviderRuntime]:
        """Load the installed providers, and return them with the passed ones.

        A provider that does not load is logged, and its activities raise the error.

        Raises:
            ProviderError: A required provider does not load, a name is taken twice, or
                `max_sandboxes` or `peer_clients` names an unknown provider.
        """
        passed = [provider.name for provider in self.providers]
        entry_points = importlib_metadata.entry_points()
        selection = select(discover(entry_points), self.configuration, passed=passed)
        for sentence in misspelt_groups(entry_points):
            logger.warning("%s", sentence)
        runtimes: dict[str, ProviderRuntime] = {}
        for result in load(selection.enabled):
            if isinstance(result, LoadedProvider):
                logger.info("sandbox provider %s: %s", result.provider.name, result.candidate)
                required = result.provider.name in selection.required
                runtimes[result.provider.name] = self._runtime(
                    result.provider, required=required, origin=str(result.candidate)
                )
                for shortcoming in result.shortcomings:
                    logger.warning("sandbox %s", shortcoming)
            elif result.name in selection.required:
                raise result.error
            else:
                logger.warning("sandbox provider %s cannot be used: %s", result.name, result.error)
                runtimes[result.name] = ProviderRuntime(result.error, name=result.name)
        installed = frozenset(runtimes)
        for provider in self.providers:
            if check_provider_name(provider.name) in runtimes:
                also = "and is also installed" if provider.name in installed else "twice"
                raise DuplicateProvider(
                    f"provider {provider.name!r} was passed to SandboxPlugin {also}; remove one "
                    f"of them."
                )
            runtimes[provider.name] = self._passed(provider)
        self._check_named(runtimes.keys())
        return list(runtimes.values())

    def _check_named(self, offered: AbstractSet[str]) -> None:
        for setting, named in (
            ("max_sandboxes", self.max_sandboxes.keys()),
            ("peer_clients", self.peer_clients.values()),
        ):
            unknown = sorted(set(named) - offered)
            if unknown:
                raise UnknownProvider(
                    f"{setting} names {', '.join(map(repr, unknown))}, which this worker does not "
                    f"offer. It offers {', '.join(map(repr, sorted(offered))) or 'none'}."
                )

    def _passed(self, provider: Provider) -> ProviderRuntime:
        which = f"provider {provider.name!r} ({type(provider).__module__})"
        for mistake in mistakes_of(provider):
            error = ProviderLoad(f"{which} {mistake}")
            logger.warning("sandbox provider %s cannot be used: %s", provider.name, error)
            return ProviderRuntime(error, name=provider.name)
        for shortcoming in shortcomings_of(provider):
            logger.warning("sandbox %s %s", which, shortcoming)
        return self._runtime(provider, required=False)

    def _runtime(
        self, provider: Provider, *, required: bool, origin: str | None = None
    ) -> ProviderRuntime:
        return ProviderRuntime(
            provider,
            required=required,
            origin=origin,
            snapshots=self.snapshots,
            local_sources=self.local_sources,
            worker_env=self.worker_env,
            max_sandboxes=self.max_sandboxes.get(provider.name),
            fleet=self.fleet,
            authorize=self.authorize,
        )
