"""Provider `cloudflare`: the Agents SDK's client against the loopback server."""

from __future__ import annotations

import pytest
from agents.extensions.sandbox.cloudflare import CloudflareSandboxClientOptions
from cloudflare_loopback import CloudflareLoopback
from loopback.http_faults import (
    HttpFaults,
)

from sandbox_cloudflare import CloudflareProvider
from sandbox_cloudflare.client import StrictCloudflareSandboxClient
from sandbox_cloudflare.session import ContainerGone
from sandbox_core.errors import InvalidOptions

pytest_plugins = ["cloudflare_fixtures"]


class TestFault(HttpFaults):
    """Of a bridge."""

    create = "POST /v1/sandbox(/[^/]+/exec)?"
    lookup = "GET /v1/sandbox/.+/running"
    delete = "DELETE /v1/sandbox/.+"
    execute = "POST /v1/sandbox/.+/exec"
    listing = "GET /v1/pool/stats"
    at_capacity = (503, {"error": "instance limit reached (3/3)", "code": "capacity_exceeded"})

    async def test_a_container_that_does_not_start_leaves_nothing(
        self, server: CloudflareLoopback, client: StrictCloudflareSandboxClient
    ) -> None:
        """The bridge may have started it, and the answer was lost."""
        server.fail(self.execute, None)
        with pytest.raises(Exception, match=r"."):
            await client.create(options=CloudflareSandboxClientOptions(worker_url=server.url))

        assert {} == dict(server.machines)


class TestContainer:
    """The container of a sandbox, in whose place a bridge starts another without a word."""

    async def test_that_was_replaced_runs_no_command(
        self,
        server: CloudflareLoopback,
        provider: CloudflareProvider,
        client: StrictCloudflareSandboxClient,
    ) -> None:
        """It would have run in an empty workspace."""
        session = await client.create(options=provider.default_options())
        await session.start()
        sandbox_id = provider.identity(session.state)
        await client.destroy(sandbox_id)
        for _ in range(2):
            with pytest.raises(ContainerGone, match=f"the container of sandbox {sandbox_id} is"):
                await session.exec("echo hello > file")

        assert [sandbox_id] == list(server.machines)
        assert not await provider.exists(client, sandbox_id)
        assert {} == dict(server.machines)


class TestKey:
    """The key of the bridge."""

    async def test_in_options_is_refused(
        self, server: CloudflareLoopback, client: StrictCloudflareSandboxClient
    ) -> None:
        """It is in a history already, but nobody shall get used to it."""
        options = CloudflareSandboxClientOptions(worker_url=server.url, api_key="k")
        with pytest.raises(InvalidOptions, match="CLOUDFLARE_SANDBOX_API_KEY in the worker's env"):
            await client.create(options=options)

    async def test_goes_to_no_other_bridge(
        self, server: CloudflareLoopback, client: StrictCloudflareSandboxClient
    ) -> None:
        """Whatever a workflow asks for."""
        options = CloudflareSandboxClientOptions(worker_url="https://elsewhere.example")
        with pytest.raises(InvalidOptions, match=r"'https://elsewhere\.example'"):
            await client.create(options=options)
        assert [] == server.requests
