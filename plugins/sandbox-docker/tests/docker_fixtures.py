"""One Docker engine for all tests of the plugin, started by the first that needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker_engine import IMAGE, UNAVAILABLE, DockerEngine, available


@pytest.fixture(scope="session")
def shared_engine() -> Iterator[DockerEngine]:
    if not available():
        pytest.skip(UNAVAILABLE)
    with DockerEngine() as running:
        yield running


@pytest.fixture
def engine(shared_engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerEngine]:
    """An engine without containers, which the environment names together with its image."""
    monkeypatch.setenv("DOCKER_HOST", shared_engine.host)
    monkeypatch.setenv("SANDBOX_DOCKER_IMAGE", IMAGE)
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "docker")
    yield shared_engine
    shared_engine.remove_containers()
