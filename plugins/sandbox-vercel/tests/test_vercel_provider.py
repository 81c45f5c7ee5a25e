"""Provider `vercel`: the vendor's SDK against the loopback server."""

from __future__ import annotations

from pathlib import Path

from agents.extensions.sandbox.vercel import VercelSandboxClientOptions
from agents.sandbox import LocalSnapshotSpec
from loopback.http_faults import HttpFaults
from vercel_loopback import VercelLoopback

from sandbox_vercel import VercelProvider
from sandbox_vercel.client import StrictVercelSandboxClient

pytest_plugins = ["vercel_fixtures"]


class TestLifecycle:
    """At Vercel, where the SDK's default root is Vercel's own."""

    async def test_a_sandbox_that_runs_is_not_replaced_by_its_native_snapshot(
        self,
        server: VercelLoopback,
        provider: VercelProvider,
        client: StrictVercelSandboxClient,
        tmp_path: Path,
    ) -> None:
        """The snapshot is older, and the SDK's client would leave the sandbox running."""
        session = await client.create(
            options=VercelSandboxClientOptions(workspace_persistence="snapshot"),
            snapshot=LocalSnapshotSpec(base_path=tmp_path / "snapshots"),
        )
        await session.start()
        await session.exec("echo saved > file")
        await session.stop()
        stopped = dict(server.machines)
        restored = await client.resume(session.state)
        await restored.start()
        await restored.exec("echo edited > file")
        resumed = await client.resume(restored.state)

        assert {} == stopped
        assert b"edited\n" == (await resumed.exec("cat file")).stdout
        assert [provider.identity(resumed.state)] == list(server.machines)


class TestFault(HttpFaults):
    """Of Vercel's API."""

    create = "POST /v1/sandboxes"
    lookup = "GET /v1/sandboxes/[^/]+"
    delete = "POST /v1/sandboxes/.+/stop"
    execute = "POST /v1/sandboxes/.+/cmd"
    listing = "GET /v1/sandboxes"
    at_capacity = (429, {"error": {"code": "rate_limited", "message": "too many sandboxes"}})
    refused_for_now = (409, 502)
