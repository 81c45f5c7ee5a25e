"""A loopback server of its own for each test, and the provider that finds it in the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from vercel_loopback import VercelLoopback

from sandbox_vercel import VercelProvider, sandbox_client_provider
from sandbox_vercel.client import StrictVercelSandboxClient


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VercelLoopback]:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "vercel")
    with VercelLoopback(tmp_path / "machines") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def provider() -> VercelProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(server: VercelLoopback, provider: VercelProvider) -> StrictVercelSandboxClient:
    return provider.create_client()
