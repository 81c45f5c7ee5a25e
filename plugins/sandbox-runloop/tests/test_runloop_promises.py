"""The core's promises with the vendor's SDK and the loopback server, while workers are killed."""

from __future__ import annotations

import pytest
from faults.promises import (
    Backend,
    CreatePromises,
    DeletePromises,
    LostPromises,
    OrphanPromises,
    WorkspacePromises,
)
from loopback.backends import ExecPromises, LoopbackBackend
from runloop_loopback import HOME, RunloopLoopback

from sandbox_runloop import RunloopProvider
from sandbox_runloop.client import LabellingRunloopSandboxClient

pytest_plugins = ["runloop_fixtures"]


@pytest.fixture
def backend(
    server: RunloopLoopback, provider: RunloopProvider, client: LabellingRunloopSandboxClient
) -> Backend:
    return LoopbackBackend(server, provider, client)


class TestCommand(ExecPromises):
    """In a devbox at Runloop."""


class TestCreate(CreatePromises):
    """Of a devbox at Runloop."""

    @pytest.fixture(autouse=True)
    def _workspace_is_at_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # What an error names is where the workspace is that was asked for elsewhere.
        monkeypatch.setattr("faults.promises.ROOT", HOME)


class TestWorkspace(WorkspacePromises):
    """At Runloop."""


class TestLost(LostPromises):
    """At Runloop."""


class TestOrphan(OrphanPromises):
    """That is a devbox at Runloop."""


class TestDelete(DeletePromises):
    """Of a devbox at Runloop."""
