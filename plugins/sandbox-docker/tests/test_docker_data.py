"""The core's promises of secrets, names and saved workspaces, with containers of a real engine."""

from __future__ import annotations

import pytest
from contract.paths import PathPromises
from contract.secrets import SecretPromises
from contract.snapshots import SnapshotPromises
from docker_engine import DockerEngine

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")


@pytest.fixture
def provider_name(engine: DockerEngine) -> str:
    return "docker"


class TestSecret(SecretPromises):
    """In the environment that a container was created with."""


class TestSnapshot(SnapshotPromises):
    """Of a container."""


class TestPath(PathPromises):
    """In a container."""
