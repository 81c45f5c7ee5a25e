"""The core's promises with the vendor's SDK and the loopback server, while workers are killed."""

from __future__ import annotations

import pytest
from e2b_loopback import E2BLoopback
from faults.promises import (
    Backend,
    CommandPromises,
    DeletePromises,
    LostPromises,
    WorkspacePromises,
)
from loopback.backends import LoopbackBackend

from sandbox_e2b import E2BProvider
from sandbox_e2b.client import StrictE2BSandboxClient

pytest_plugins = ["e2b_fixtures"]


@pytest.fixture
def backend(server: E2BLoopback, provider: E2BProvider, client: StrictE2BSandboxClient) -> Backend:
    return LoopbackBackend(server, provider, client)


class TestCommand(CommandPromises):
    """In a sandbox at E2B."""


class TestWorkspace(WorkspacePromises):
    """At E2B."""


class TestLost(LostPromises):
    """At E2B."""


class TestDelete(DeletePromises):
    """Of a sandbox at E2B."""
