"""A loopback server for each test, and the provider, which finds it through the environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from daytona_loopback import DaytonaLoopback

from sandbox_daytona import DaytonaProvider, sandbox_client_provider


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaytonaLoopback]:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "daytona")
    with DaytonaLoopback(tmp_path) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def provider() -> DaytonaProvider:
    return sandbox_client_provider()
