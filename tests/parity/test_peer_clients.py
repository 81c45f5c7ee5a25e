"""Workflows that began with the OpenAI plugin's own sandboxes end on workers with sandbox-core."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.manifest import Environment
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from scripts import Scripts
from support import bytes_of, completed_activities, running_worker, unique
from temporalio.client import Client
from temporalio.openai_agents import (
    OpenAIAgentsPlugin,
    SandboxClientProvider,
    TemporalWorkerEnvValue,
)
from temporalio.runtime import MetricBuffer, MetricBufferDurationFormat, Runtime, TelemetryConfig
from temporalio.worker import Worker
from workflows.peer_steps import PeerSteps

from sandbox_core.errors import UnknownProvider
from sandbox_core.worker import SandboxPlugin

SECRET = "s3cr3t-of-the-peer"
MANIFEST = Manifest(
    entries={"hello.txt": File(content=b"hello\n")},
    environment=Environment(value={"TOKEN": TemporalWorkerEnvValue(name="PEER_TOKEN")}),
)


def with_plugins(client: Client, *plugins: SandboxPlugin, theirs: bool = False) -> Client:
    """Return a client with the OpenAI plugin, with or without its own sandboxes."""
    backends = [SandboxClientProvider("local", UnixLocalSandboxClient())] if theirs else []
    agents = OpenAIAgentsPlugin(
        model_provider=Scripts({}),
        sandbox_clients=backends,
        resolvable_worker_env_vars=["PEER_TOKEN"] if theirs else [],
    )
    config = client.config()
    config["plugins"] = [agents, *plugins]
    return Client(**config)


def ours(client: Client, names: Mapping[str, str]) -> Client:
    return with_plugins(client, SandboxPlugin(peer_clients=names, worker_env=["PEER_TOKEN"]))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEER_TOKEN", SECRET)


async def test_a_workflow_of_the_plugins_own_ends_on_a_worker_of_ours(
    temporal_client: Client,
) -> None:
    """With its files as it left them, every operation, and no credential in the history."""
    queue = unique("queue")
    client = ours(temporal_client, {"local": "local"})
    theirs = with_plugins(temporal_client, theirs=True)
    handle = await theirs.start_workflow(
        PeerSteps.run, args=["local", MANIFEST], id=unique("peer"), task_queue=queue
    )
    async with running_worker(theirs, PeerSteps, plugins=(), task_queue=queue):
        assert "hello\n0" == await handle.execute_update(PeerSteps.do, "cat hello.txt")
        assert "0" == await handle.execute_update(PeerSteps.do, "echo edited > hello.txt")
    async with running_worker(client, PeerSteps, plugins=(), task_queue=queue):
        seen = await handle.execute_update(PeerSteps.do, "cat hello.txt; echo $TOKEN; exit 3")
        said = await handle.execute_update(PeerSteps.use_everything_else)
        failed = await handle.execute_update(PeerSteps.fail)
        await handle.signal(PeerSteps.finish)
        await handle.result()
    history = await handle.fetch_history()

    assert seen.startswith("edited\n")
    assert seen.endswith("3")
    assert "got it" in said
    assert "workspace_read_not_found" == failed
    assert SECRET.encode() not in bytes_of(history)
    last = completed_activities(history)[-3:]
    assert ["session_stop", "session_shutdown", "client_delete"] == [
        name.removeprefix("local-sandbox_") for name in last
    ]


async def test_a_workflow_that_begins_on_a_worker_of_ours_does_all_there(
    temporal_address: str,
) -> None:
    """Also under a name that is not the provider's, which the metrics do have."""
    buffer = MetricBuffer(10_000, MetricBufferDurationFormat.SECONDS)
    runtime = Runtime(telemetry=TelemetryConfig(metrics=buffer))
    client = ours(await Client.connect(temporal_address, runtime=runtime), {"theirs": "local"})
    async with running_worker(client, PeerSteps, plugins=()) as queue:
        handle = await client.start_workflow(
            PeerSteps.run, args=["theirs", MANIFEST], id=unique("peer"), task_queue=queue
        )
        assert "hello\n0" == await handle.execute_update(PeerSteps.do, "cat hello.txt")
        await handle.signal(PeerSteps.finish)
        await handle.result()

    counted = {
        (update.attributes["provider"], update.attributes["operation"])
        for update in buffer.retrieve_updates()
        if "sandbox_core_operations" == update.metric.name
    }
    assert {("local", "client_create"), ("local", "session_exec")} <= counted


def test_a_provider_that_is_not_there_is_named(temporal_client: Client) -> None:
    """When the worker is made."""
    with pytest.raises(UnknownProvider, match="peer_clients names 'nowhere'"):
        Worker(ours(temporal_client, {"local": "nowhere"}), task_queue="any", workflows=[PeerSteps])
