"""A real session of each backend, without Temporal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from agents.sandbox import Manifest
from agents.sandbox.manifest import Environment
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from processes.bare import ENVIRONMENT
from processes.driving import Box
from processes.streamed import Streamed
from support import installed_provider

from sandbox_core.providers import client_provider
from sandbox_core.providers.registry import Provider
from sandbox_core.worker.commands.helper import close_helpers


def through_exec() -> Provider:
    """Return a provider of the SDK's local backend of which nothing is known but its sessions."""
    return client_provider(
        "through-exec",
        lambda: UnixLocalSandboxClient(inherit_host_environment=False),
        UnixLocalSandboxClientOptions,
    )


@asynccontextmanager
async def box_of(
    provider: Provider,
    client: BaseSandboxClient[Any],
    options: BaseSandboxClientOptions | None = None,
) -> AsyncIterator[Box]:
    """A session that has been started, and that is deleted with all that it has started."""
    manifest = Manifest(environment=Environment(value=dict(ENVIRONMENT)))
    session = await client.create(manifest=manifest, options=options)
    await session.start()
    box = Box(provider, session)
    try:
        yield box
    finally:
        await box.forget()
        await client.delete(session)


@pytest.fixture
async def local() -> AsyncIterator[Box]:
    """Asked over the helper's socket."""
    provider = installed_provider("local")
    async with box_of(provider, provider.create_client()) as box:
        yield box


@pytest.fixture
async def remote() -> AsyncIterator[Box]:
    """The same backend, asked through its `exec`."""
    provider = through_exec()
    async with box_of(provider, provider.create_client()) as box:
        yield box


@pytest.fixture
async def streamed() -> AsyncIterator[Box]:
    """The same backend, asked through a relay."""
    provider: Any = Streamed()
    async with box_of(provider, provider.create_client()) as box:
        yield box
        await close_helpers(box.session)
    for stream in provider.streams:
        await stream.release()


@pytest.fixture(params=["local", "remote", "streamed"])
def box(request: pytest.FixtureRequest) -> Box:
    """Each backend in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Box)
    return found
