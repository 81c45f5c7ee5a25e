"""A loopback server for each test, and the provider, which finds it through the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2b_loopback import E2BLoopback
from loopback.server import started

from sandbox_e2b import E2BProvider, sandbox_client_provider
from sandbox_e2b.client import StrictE2BSandboxClient


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[E2BLoopback]:
    yield from started(E2BLoopback(tmp_path / "machines"), "e2b", monkeypatch)


@pytest.fixture
def provider() -> E2BProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(server: E2BLoopback, provider: E2BProvider) -> StrictE2BSandboxClient:
    return provider.create_client()
