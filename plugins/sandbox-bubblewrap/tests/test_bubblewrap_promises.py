"""The core's promises with sandboxes of bubblewrap, whose workers are killed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.promises import (
    Backend,
    CommandPromises,
    CreatePromises,
    DeletePromises,
    LostPromises,
    OrphanPromises,
    WorkspacePromises,
)

from sandbox_bubblewrap import commands, sandbox_client_provider
from sandbox_bubblewrap.client import BubblewrapSandboxClient
from sandbox_bubblewrap.store import Sandbox

pytest_plugins = ["bubblewrap_fixtures"]

pytestmark = pytest.mark.xdist_group("bubblewrap")

_OURS = ("/run/sandbox", "ps -e")


class Bubblewrap(Backend):
    """Sandboxes of this host, asked by their process 1."""

    def __init__(self, client: BubblewrapSandboxClient) -> None:
        super().__init__(sandbox_client_provider(), client)
        self._store = client.store

    async def run(self, sandbox_id: str, script: str) -> str:
        sandbox = self._store.get(sandbox_id)
        assert sandbox is not None
        ended = await _run(sandbox, "sh", "-c", script)
        return ended.stdout.decode()

    async def commands(self, sandbox_id: str) -> list[str]:
        sandbox = self._store.get(sandbox_id)
        assert sandbox is not None
        ended = await _run(sandbox, "ps", "-e", "-o", "args=")
        shown = ended.stdout.decode().splitlines()
        return [args for args in shown if not any(ours in args for ours in _OURS)]

    @contextmanager
    def stalled(self) -> Iterator[None]:
        self._store._prepare()
        lock = os.open(self._store.root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(lock)


async def _run(sandbox: Sandbox, *argv: str) -> commands.Ended:
    return await commands.run(sandbox, argv, env={"PATH": "/usr/bin:/bin"}, cwd="/workspace")


@pytest.fixture
def backend(home: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "bubblewrap")
    return Bubblewrap(sandbox_client_provider().create_client())


class TestCommand(CommandPromises):
    """In a sandbox of bubblewrap."""


class TestCreate(CreatePromises):
    """Of a sandbox."""


class TestWorkspace(WorkspacePromises):
    """In a sandbox of bubblewrap."""


class TestLost(LostPromises):
    """A sandbox."""


class TestDelete(DeletePromises):
    """Of a sandbox."""


class TestOrphan(OrphanPromises):
    """That is a sandbox of bubblewrap."""
