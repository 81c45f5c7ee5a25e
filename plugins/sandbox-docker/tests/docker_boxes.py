"""A session in a container, and what only the container's host can do to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from agents.sandbox import Manifest
from docker.models.containers import Container
from docker_engine import DockerEngine
from processes.driving import Box

from sandbox_core.worker.commands.helper import why_plain
from sandbox_docker import sandbox_client_provider

MS_RDONLY, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 8, 32, 4096

_MOUNT = """
import ctypes, os, sys
pid, target, options, data = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
space = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
done = libc.setns(space, 0) or libc.mount(
    b"tmpfs", os.fsencode(target), b"tmpfs", ctypes.c_ulong(int(options)), data.encode()
)
if done:
    sys.exit(f"mount {target}: {os.strerror(ctypes.get_errno())}")
"""


@dataclass
class Contained(Box):
    """A session in a container, and the container."""

    container: Container

    def mount(self, target: str, options: int = 0, data: str = "") -> None:
        """Mount an empty tmpfs in the container, which may not do so itself."""
        self._mount(target, options, data)

    def make_read_only(self, *targets: str) -> None:
        for target in targets:
            self._mount(target, MS_REMOUNT | MS_RDONLY | MS_BIND, "")

    def _mount(self, target: str, options: int, data: str) -> None:
        self.container.reload()
        words = [str(self.container.attrs["State"]["Pid"]), target, str(options), data]
        subprocess.run([sys.executable, "-c", _MOUNT, *words], check=True)

    def small(self, options: str) -> None:
        """Have a small /tmp, and no other folder that can be written to."""
        self.mount("/tmp", data=f"mode=1777,{options}")
        self.make_read_only("/dev/shm", "/")

    def limit_processes(self, count: int) -> None:
        api = self.container.client.api
        url = api._url("/containers/{0}/update", self.container.id)
        api._result(api._post_json(url, data={"PidsLimit": count}), json=True)

    def why_plain(self) -> str | None:
        return why_plain(self.provider, self.session, None)

    async def held(self) -> bool:
        """Whether the next command runs under the helper."""
        await self.exec("true")
        return self.why_plain() is None


@pytest.fixture
async def box(engine: DockerEngine) -> AsyncIterator[Contained]:
    provider = sandbox_client_provider()
    client = provider.create_client()
    try:
        session = await client.create(manifest=Manifest(), options=provider.default_options())
        await session.start()
        container = engine.client.containers.get(provider.identity(session.state))
        yield Contained(provider, session, container)
        await client.delete(session)
    finally:
        client.close()
