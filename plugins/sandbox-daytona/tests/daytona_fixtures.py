"""A loopback server for each test, and the provider, which finds it through the environment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web
from daytona_loopback import DaytonaLoopback
from daytona_loopback_sandbox import Sandbox
from loopback.faults import FaultyServer

from sandbox_daytona import DaytonaProvider, sandbox_client_provider
from sandbox_daytona.client import LabellingDaytonaSandboxClient


class FaultyDaytona(DaytonaLoopback, FaultyServer):
    """A server that can answer otherwise."""

    def __init__(self, root: Path) -> None:
        FaultyServer.__init__(self)
        DaytonaLoopback.__init__(self, root)

    @property
    def machines(self) -> Mapping[str, Sandbox]:
        """The sandboxes that exist, by id."""
        return self.sandboxes

    def _application(self) -> web.Application:
        app = super()._application()
        self.add_faults(app)
        return app


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyDaytona]:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "daytona")
    with FaultyDaytona(tmp_path) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def provider() -> DaytonaProvider:
    return sandbox_client_provider()


@pytest.fixture
async def client(
    server: FaultyDaytona, provider: DaytonaProvider
) -> AsyncIterator[LabellingDaytonaSandboxClient]:
    async with provider.create_client() as made:
        assert isinstance(made, LabellingDaytonaSandboxClient)
        yield made
