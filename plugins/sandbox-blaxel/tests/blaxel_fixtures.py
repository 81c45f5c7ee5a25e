"""A loopback server for each test, and the provider, which finds it through the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blaxel_loopback import BlaxelLoopback
from loopback.server import started

from sandbox_blaxel import BlaxelProvider, sandbox_client_provider

if TYPE_CHECKING:  # Blaxel's SDK reads the credentials when it is imported.
    from sandbox_blaxel.client import LabellingBlaxelSandboxClient


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BlaxelLoopback]:
    yield from started(BlaxelLoopback(tmp_path / "machines"), "blaxel", monkeypatch)


@pytest.fixture
def provider() -> BlaxelProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(server: BlaxelLoopback, provider: BlaxelProvider) -> LabellingBlaxelSandboxClient:
    return provider.create_client()
