"""One real Temporal dev server for the whole run, shared by all pytest-xdist workers."""

from __future__ import annotations

import os

import pytest
from temporalio.client import Client

from sandbox_core.testing import DevServer

_ADDRESS = "SANDBOX_CORE_TEST_TEMPORAL_ADDRESS"
_server: DevServer | None = None


def pytest_configure(config: pytest.Config) -> None:
    # Only the controller starts it; the workers of pytest-xdist inherit the address.
    global _server
    if _ADDRESS not in os.environ and not config.option.collectonly:
        _server = DevServer()
        _server.start()
        os.environ[_ADDRESS] = _server.address


def pytest_unconfigure() -> None:
    if _server is not None:
        _server.stop()


@pytest.fixture(scope="session")
def temporal_address() -> str:
    return os.environ[_ADDRESS]


@pytest.fixture
async def temporal_client(temporal_address: str) -> Client:
    return await Client.connect(temporal_address)
