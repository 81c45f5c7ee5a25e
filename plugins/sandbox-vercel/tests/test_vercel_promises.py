"""The core's promises with the vendor's SDK and the loopback server, while workers are killed."""

from __future__ import annotations

import pytest
from faults.promises import (
    Backend,
    DeletePromises,
    LostPromises,
    WorkspacePromises,
)
from loopback.backends import ExecPromises, LoopbackBackend
from vercel_loopback import VercelLoopback

from sandbox_vercel import VercelProvider
from sandbox_vercel.client import StrictVercelSandboxClient

pytest_plugins = ["vercel_fixtures"]


@pytest.fixture
def backend(
    server: VercelLoopback, provider: VercelProvider, client: StrictVercelSandboxClient
) -> Backend:
    return LoopbackBackend(server, provider, client)


class TestCommand(ExecPromises):
    """In a sandbox at Vercel."""


class TestWorkspace(WorkspacePromises):
    """At Vercel."""


class TestLost(LostPromises):
    """At Vercel."""


class TestDelete(DeletePromises):
    """Of a sandbox at Vercel."""
