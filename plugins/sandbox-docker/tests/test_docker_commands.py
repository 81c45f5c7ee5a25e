"""Commands in containers, under the helper, beside those of the engine's own call."""

from __future__ import annotations

import http.client
import time
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


async def test_output_that_comes_along_with_the_engines_headers_is_not_lost(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command has often ended before a busy worker reads what the engine says of its start."""
    begin = http.client.HTTPResponse.begin

    def begin_late(response: http.client.HTTPResponse) -> None:
        time.sleep(0.5)  # Nothing tells when the output is there as well.
        begin(response)

    monkeypatch.setattr(http.client.HTTPResponse, "begin", begin_late)

    result = await box.plain("echo out; head -c 100000 /dev/zero >&2; exit 3")

    assert (b"out\n", 100_000, 3) == (result.stdout, len(result.stderr), result.exit_code)
