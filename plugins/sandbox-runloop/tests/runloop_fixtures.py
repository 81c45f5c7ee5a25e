"""A loopback server for each test, and the provider, which finds it through the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback.server import started
from runloop_loopback import RunloopLoopback

from sandbox_runloop import RunloopProvider, sandbox_client_provider
from sandbox_runloop.client import LabellingRunloopSandboxClient


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunloopLoopback]:
    yield from started(RunloopLoopback(tmp_path / "machines"), "runloop", monkeypatch)


@pytest.fixture
def provider() -> RunloopProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(server: RunloopLoopback, provider: RunloopProvider) -> LabellingRunloopSandboxClient:
    return provider.create_client()
