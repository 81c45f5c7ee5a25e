"""What the contract promises, with the vendor's SDK and a loopback server that runs commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from daytona_loopback import DaytonaLoopback

from sandbox_core.testing.contract import Backend
from sandbox_core.testing.contract.pytest_plugin import ProviderContract


class TestDaytona(ProviderContract):
    """Sandboxes at a loopback server."""

    provider_module = "sandbox_daytona"

    @pytest.fixture(scope="class")
    def contract_backend(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
        server = DaytonaLoopback(tmp_path_factory.mktemp("daytona"))

        async def sandboxes() -> set[str]:
            return set(server.sandboxes)

        with pytest.MonkeyPatch.context() as patch, server:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            yield Backend(
                backend_ids=sandboxes,
                unreachable={"DAYTONA_API_URL": "http://127.0.0.1:1"},
                max_sandboxes=8,
            )
