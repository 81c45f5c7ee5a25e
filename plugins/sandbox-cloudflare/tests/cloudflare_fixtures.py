"""A loopback server for each test, and the provider, which finds it through the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cloudflare_loopback import CloudflareLoopback
from loopback.server import started

from sandbox_cloudflare import CloudflareProvider, sandbox_client_provider
from sandbox_cloudflare.client import StrictCloudflareSandboxClient


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudflareLoopback]:
    yield from started(CloudflareLoopback(tmp_path / "machines"), "cloudflare", monkeypatch)


@pytest.fixture
def provider() -> CloudflareProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(
    server: CloudflareLoopback, provider: CloudflareProvider
) -> StrictCloudflareSandboxClient:
    return provider.create_client()
