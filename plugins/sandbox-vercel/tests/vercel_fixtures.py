"""A loopback server for each test, and the provider, which finds it through the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback.server import started
from vercel_loopback import VercelLoopback

from sandbox_vercel import VercelProvider, sandbox_client_provider
from sandbox_vercel.client import StrictVercelSandboxClient


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VercelLoopback]:
    yield from started(VercelLoopback(tmp_path / "machines"), "vercel", monkeypatch)


@pytest.fixture
def provider() -> VercelProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(server: VercelLoopback, provider: VercelProvider) -> StrictVercelSandboxClient:
    return provider.create_client()
