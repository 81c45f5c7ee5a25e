"""The contract's checks, for sandboxes of bubblewrap."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from bubblewrap_fixtures import clean
from bubblewrap_worker import new_home

from sandbox_bubblewrap import launch
from sandbox_bubblewrap.store import Sandbox
from sandbox_core.testing.contract import Backend, Check
from sandbox_core.testing.contract.pytest_plugin import ProviderContract

pytest_plugins = ["bubblewrap_fixtures"]

pytestmark = pytest.mark.xdist_group("bubblewrap")


class TestBubblewrap(ProviderContract):
    """Sandboxes of this host."""

    provider_module = "sandbox_bubblewrap"

    @classmethod
    def contract_marks(cls, check: Check) -> Sequence[pytest.MarkDecorator]:
        # `local` shows what workers do: it is the same for every provider.
        return (pytest.mark.extended,) if check.level == "durable" else ()

    @pytest.fixture(scope="class")
    @classmethod
    def contract_backend(cls, usable: None) -> Iterator[Backend]:
        home = new_home()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SANDBOX_BUBBLEWRAP_HOME", str(home / "store"))

            async def sandboxes() -> set[str]:
                return {path.name for path in (home / "store").glob("bwrap-*")}

            async def stop(sandbox_id: str) -> None:
                await asyncio.to_thread(launch.stop, Sandbox(path=home / "store" / sandbox_id))

            yield Backend(backend_ids=sandboxes, stop_sandbox=stop, max_sandboxes=25)
        clean(home)
