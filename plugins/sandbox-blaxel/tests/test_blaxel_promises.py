"""The core's promises with the vendor's SDK and the loopback server, while workers are killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from blaxel_loopback import BlaxelLoopback
from faults.promises import (
    Backend,
    CommandPromises,
    CreatePromises,
    DeletePromises,
    LostPromises,
    OrphanPromises,
    WorkspacePromises,
)
from loopback.backends import LoopbackBackend

from sandbox_blaxel import BlaxelProvider

if TYPE_CHECKING:  # Blaxel's SDK reads the credentials when it is imported.
    from sandbox_blaxel.client import LabellingBlaxelSandboxClient

pytest_plugins = ["blaxel_fixtures"]


@pytest.fixture
def backend(
    server: BlaxelLoopback, provider: BlaxelProvider, client: LabellingBlaxelSandboxClient
) -> Backend:
    return LoopbackBackend(server, provider, client)


class TestCommand(CommandPromises):
    """In a sandbox at Blaxel."""


class TestCreate(CreatePromises):
    """Of a sandbox at Blaxel."""


class TestWorkspace(WorkspacePromises):
    """At Blaxel."""


class TestLost(LostPromises):
    """At Blaxel."""


class TestOrphan(OrphanPromises):
    """That is a sandbox at Blaxel."""


class TestDelete(DeletePromises):
    """Of a sandbox at Blaxel."""
