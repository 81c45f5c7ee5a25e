"""The backend of a loopback server, for the promises that hold while workers are killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from faults.harness import Workers
from faults.promises import CommandPromises, Handle, WatchedBackend
from temporalio.client import Client

from loopback.server import LoopbackServer
from sandbox_core.providers.registry import Provider
from sandbox_core.worker.reaping.reaper import Reapable


class LoopbackBackend(WatchedBackend):
    """The sandboxes of a server, looked at in the server.

    Those of a provider without labels are all workflows': a test has a server of its own.
    """

    def __init__(
        self, server: LoopbackServer, provider: Provider, client: BaseSandboxClient[Any]
    ) -> None:
        self.name, self.client = provider.name, client
        self.provider = cast("Reapable", provider)
        self._server = server

    async def run(self, sandbox_id: str, script: str) -> str:
        machine = self._server.machines[sandbox_id]
        return (await machine.run("bash", "-c", script, cwd="/workspace")).stdout.decode()

    async def commands(self, sandbox_id: str) -> list[str]:
        return [str(pid) for pid in self._server.machines[sandbox_id].processes()]

    async def sandboxes_of(self, handle: Handle) -> list[str]:
        if hasattr(self.provider, "find"):
            return await super().sandboxes_of(handle)
        return list(self._server.machines)

    @contextmanager
    def stalled(self) -> Iterator[None]:
        self._server.answering.clear()
        try:
            yield
        finally:
            self._server.answering.set()


class ExecPromises(CommandPromises):
    """Of commands alone: a session of the SDK's that has no terminals has no processes either."""

    @pytest.mark.parametrize("process", [False], ids=["exec"])
    async def test_runs_once_and_comes_back_whole_after_kill_9(
        self, temporal_client: Client, fleet: Workers, backend: WatchedBackend, process: bool
    ) -> None:
        await super().test_runs_once_and_comes_back_whole_after_kill_9(
            temporal_client, fleet, backend, process
        )
