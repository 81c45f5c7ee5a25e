"""The core's promises of secrets, names and saved workspaces, at a loopback server."""

from __future__ import annotations

import pytest
from contract.paths import PathPromises
from contract.secrets import SecretPromises
from contract.snapshots import SnapshotPromises
from daytona_loopback import DaytonaLoopback

pytest_plugins = ["daytona_fixtures"]


@pytest.fixture
def provider_name(server: DaytonaLoopback, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "daytona")
    return "daytona"


class TestSecret(SecretPromises):
    """In the command line of everything that Daytona runs."""


class TestSnapshot(SnapshotPromises):
    """Of a sandbox at Daytona."""


class TestPath(PathPromises):
    """In a sandbox at Daytona."""
