"""The backend of a loopback server, for the promises that hold while workers are killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from agents.sandbox.session.sandbox_client import BaseSandboxClient
from faults.promises import Backend, Handle

from loopback.server import LoopbackServer
from sandbox_core.providers.registry import Provider
from sandbox_core.worker.reaper import Reapable


class LoopbackBackend(Backend):
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
