"""Commands in containers, under the helper, beside those of the engine's own call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from agents.sandbox import Manifest
from agents.sandbox.manifest import Environment
from docker_engine import DockerEngine
from processes.bare import ENVIRONMENT, compare
from processes.driving import Box

from sandbox_docker import sandbox_client_provider

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")


@pytest.fixture
async def box(engine: DockerEngine) -> AsyncIterator[Box]:
    provider = sandbox_client_provider()
    client = provider.create_client()
    try:
        session = await client.create(
            manifest=Manifest(environment=Environment(value=dict(ENVIRONMENT))),
            options=provider.default_options(),
        )
        await session.start()
        yield Box(provider, session)
        await client.delete(session)
    finally:
        client.close()


async def test_a_command_is_as_the_engine_has_it(box: Box) -> None:
    differences = await compare(box, "docker")

    wrong = [str(row) for row in differences if row.reason is None]
    assert not wrong, "\n".join(wrong)
