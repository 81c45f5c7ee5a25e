"""The SDK's local backend, with streams to its processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from support import installed_provider

from sandbox_core.providers import SandboxClientProvider

_PIECE = 64 * 1024


class PipeStream:
    """A process with pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    async def send(self, data: bytes) -> None:
        self._stdin.write(data)
        await self._stdin.drain()

    async def receive(self) -> bytes:
        return await self._stdout.read(_PIECE)

    async def send_eof(self) -> None:
        self._stdin.close()
        await self._stdin.wait_closed()

    async def aclose(self) -> None:
        self._stdin.close()

    async def release(self) -> None:
        """End the process if it has not ended, and let go of what nobody has received."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        # asyncio closes its pipes only once what they hold has been read, which nobody does here.
        self.process._transport.close()  # type: ignore[attr-defined]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


class Streamed(SandboxClientProvider[UnixLocalSandboxClientOptions]):
    """Keeps the streams that were opened."""

    name = "streamed"
    summary = "Directories of this host"
    api_version = 1
    options_type = UnixLocalSandboxClientOptions

    def __init__(self) -> None:
        self.streams: list[PipeStream] = []
        self._local: Any = installed_provider("local")

    def create_client(self) -> UnixLocalSandboxClient:
        client: UnixLocalSandboxClient = self._local.create_client()
        return client

    async def open_stream(
        self, session: BaseSandboxSession, command: Sequence[str], *, user: str | None
    ) -> PipeStream:
        assert user is None
        started = await self._local.host_process(session, command)
        process = await asyncio.create_subprocess_exec(
            *started.argv,
            cwd=started.cwd,
            env=dict(started.environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.streams.append(PipeStream(process))
        return self.streams[-1]
