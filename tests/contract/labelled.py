"""Labelled sandboxes, for tests of one provider's peculiarities; the kit covers the rest.

The tests have fixtures `provider` and `client`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pytest
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.providers import (
    SupportsDestroy,
    SupportsExists,
    SupportsIdentity,
    SupportsLabels,
)

Client = BaseSandboxClient[Any]

OWNER = {"owner.namespace": "default", "owner.workflow": "first"}
LABELS = {**OWNER, "made-for": "request-1"}


class Provider(
    SupportsIdentity, SupportsExists[Any], SupportsDestroy[Any], SupportsLabels[Any], Protocol
):
    """The abilities that these promises are about."""

    def default_options(self) -> BaseSandboxClientOptions:
        """Return the options of a create that names none."""
        ...


async def create(provider: Provider, client: Client, labels: Mapping[str, str]) -> SandboxSession:
    """Make a sandbox with these labels."""
    labelled: Client = provider.labelled(client, labels)
    return await labelled.create(options=provider.default_options())


async def find_ids(provider: Provider, client: Client, labels: Mapping[str, str]) -> list[str]:
    """Return the ids of the sandboxes that have all of these labels."""
    return [sandbox.sandbox_id for sandbox in await provider.find(client, labels)]


class WithSession:
    """Tests of one labelled sandbox."""

    @pytest.fixture
    async def session(self, provider: Provider, client: Client) -> SandboxSession:
        return await create(provider, client, LABELS)
