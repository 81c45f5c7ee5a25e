"""A real session of each backend, without Temporal."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from agents.extensions.sandbox.daytona import DaytonaSandboxClient, DaytonaSandboxClientOptions
from agents.sandbox import Manifest
from agents.sandbox.manifest import Environment
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from daytona_loopback import DaytonaLoopback

from sandbox_core.worker.commands import processes

ENVIRONMENT = Environment(value={"GREETING": "hello world"})


@pytest.fixture
async def local() -> AsyncIterator[SandboxSession]:
    client = UnixLocalSandboxClient(inherit_host_environment=False)
    session = await client.create(manifest=Manifest(environment=ENVIRONMENT))
    await session.start()
    yield session
    await processes.forget(session)
    await client.delete(session)


@pytest.fixture
async def daytona(tmp_path: Path) -> AsyncIterator[SandboxSession]:
    with DaytonaLoopback(tmp_path) as server:
        async with DaytonaSandboxClient(api_key=server.api_key, api_url=server.api_url) as client:
            session = await client.create(
                manifest=Manifest(environment=ENVIRONMENT), options=DaytonaSandboxClientOptions()
            )
            await session.start()
            yield session
            await processes.forget(session)
            await client.delete(session)


@pytest.fixture(params=["bash", "busybox"])
def other_shell(request: pytest.FixtureRequest, local: SandboxSession, tmp_path: Path) -> None:
    """Let another shell than the machine's be called sh in the local backend's session."""
    found = Path(f"/usr/bin/{request.param}")
    if not found.exists():
        pytest.skip(f"no {request.param} here")
    (tmp_path / "sh").symlink_to(found)
    if request.param == "busybox":
        for applet in ("cat", "head", "ls", "mkdir", "rm", "setsid", "sleep", "tail", "wc"):
            (tmp_path / applet).symlink_to(found)
    values = local.state.manifest.environment.value
    values["PATH"] = f"{tmp_path}:{os.environ['PATH']}"


@pytest.fixture(params=["local", "daytona"])
def session(request: pytest.FixtureRequest) -> SandboxSession:
    """Each backend in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, SandboxSession)
    return found
