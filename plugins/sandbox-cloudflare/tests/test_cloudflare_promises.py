"""The core's promises with the Agents SDK and the loopback server, while workers are killed."""

from __future__ import annotations

import pytest
from cloudflare_loopback import CloudflareLoopback
from faults.promises import (
    Backend,
    CommandPromises,
    DeletePromises,
    LostPromises,
    WorkspacePromises,
)
from loopback.backends import LoopbackBackend

from sandbox_cloudflare import CloudflareProvider
from sandbox_cloudflare.client import StrictCloudflareSandboxClient

pytest_plugins = ["cloudflare_fixtures"]


@pytest.fixture
def backend(
    server: CloudflareLoopback, provider: CloudflareProvider, client: StrictCloudflareSandboxClient
) -> Backend:
    return LoopbackBackend(server, provider, client)


class TestCommand(CommandPromises):
    """In a sandbox at Cloudflare."""


class TestWorkspace(WorkspacePromises):
    """At Cloudflare."""


class TestLost(LostPromises):
    """At Cloudflare."""


class TestDelete(DeletePromises):
    """Of a sandbox at Cloudflare."""
