"""A loopback server of its own for each test, and the provider that finds it in the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runloop_loopback import RunloopLoopback

from sandbox_runloop import RunloopProvider, sandbox_client_provider
from sandbox_runloop.client import LabellingRunloopSandboxClient


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunloopLoopback]:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "runloop")
    with RunloopLoopback(tmp_path / "machines") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def provider() -> RunloopProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(server: RunloopLoopback, provider: RunloopProvider) -> LabellingRunloopSandboxClient:
    return provider.create_client()


@pytest.fixture
def left(server: RunloopLoopback) -> Callable[[], list[object]]:
    """What the server has."""
    return lambda: list(server.machines)
