"""The core's promises of secrets, names and saved workspaces, with directories."""

from __future__ import annotations

import pytest
from contract.paths import PathPromises
from contract.secrets import SecretPromises
from contract.snapshots import SnapshotPromises


@pytest.fixture
def provider_name(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")
    return "local"


class TestSecret(SecretPromises):
    """In the environment of processes of the worker's host."""


class TestSnapshot(SnapshotPromises):
    """Of a directory."""


class TestPath(PathPromises):
    """Of the worker's host."""
