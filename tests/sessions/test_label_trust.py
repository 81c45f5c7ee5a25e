"""A worker does not rely on a provider's labels that do not keep their promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from local_backend import LocalClient, LocalProvider
from support import running_worker, unique
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment
from workflows.steps import Outcome, Perform, Plan, Step

from sandbox_core.providers import LabelledSandbox
from sandbox_core.worker import SandboxPlugin
from sandbox_core.worker.call import Call
from sandbox_core.worker.sessions.creation import destroy_others
from sandbox_core.worker.sessions.labels import Namespace
from sandbox_core.worker.sessions.pool import Client as SandboxClient


class _New(LocalProvider):
    """Makes a new client for labels, where a copy would have what the first one was given."""

    name = "new"

    def labelled(self, client: LocalClient, labels: Mapping[str, str]) -> LocalClient:
        return self.create_client().labelled(labels)


class _Unlabelled(LocalProvider):
    """Sets no labels."""

    name = "unlabelled"

    def labelled(self, client: LocalClient, labels: Mapping[str, str]) -> LocalClient:
        return client


class _Echo(LocalProvider):
    """Says of every sandbox that it has the labels that are looked for."""

    name = "echo"
    destroyed: list[str]

    async def find(
        self, client: UnixLocalSandboxClient, labels: Mapping[str, str]
    ) -> Sequence[LabelledSandbox]:
        return [LabelledSandbox(sandbox_id="of somebody else", labels=labels)]

    async def destroy(self, client: UnixLocalSandboxClient, sandbox_id: str) -> None:
        self.destroyed.append(sandbox_id)


async def _run(
    client: Client, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch, *, times: int = 1
) -> list[Outcome]:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")
    outcomes: list[Outcome] = []
    plugins = [SandboxPlugin(providers=[provider])]
    async with running_worker(client, Perform, plugins=plugins) as queue:
        for _ in range(times):
            steps = [Step("exec", ["echo made"]), Step("stop")]
            plan = Plan(steps, provider=provider.name, saved=True)
            outcomes += await client.execute_workflow(
                Perform.run, plan, id=unique("labels"), task_queue=queue
            )
    return outcomes


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "are ignored" in r.getMessage()]


async def test_a_new_client_has_what_the_first_was_given(
    temporal_client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sessions find the store of snapshots."""
    outcomes = await _run(temporal_client, _New(), monkeypatch)

    assert [Outcome(text="made\n"), Outcome(text="None")] == outcomes
    assert [] == _warnings(caplog)


async def test_labels_that_are_not_kept_are_one_warning(
    temporal_client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The sandboxes work without them."""
    outcomes = await _run(temporal_client, _Unlabelled(), monkeypatch, times=2)

    assert ["made\n", "None"] * 2 == [outcome.text for outcome in outcomes]
    [warning] = _warnings(caplog)
    assert warning.startswith("the labels of provider 'unlabelled' are ignored: its find")


async def test_a_find_that_matches_anything_is_asked_once(
    temporal_client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of what it says is destroyed."""
    provider = _Echo()
    provider.destroyed = []
    outcomes = await _run(temporal_client, provider, monkeypatch, times=2)

    assert ["made\n", "None"] * 2 == [outcome.text for outcome in outcomes]
    assert "of somebody else" not in provider.destroyed
    [warning] = _warnings(caplog)
    assert "its find returns sandboxes with labels that no sandbox can have" in warning


async def test_what_it_says_of_a_retried_create_is_not_destroyed() -> None:
    """The session may be deleted by a worker that has not yet asked the provider anything."""
    provider = _Echo()
    provider.destroyed = []
    namespace = Namespace(name="default", id="1")
    client = cast("SandboxClient", provider.create_client())
    call = Call(provider=provider, client=client, namespace=namespace)

    await ActivityEnvironment().run(destroy_others, call, ["key"], keep=None)

    assert [] == provider.destroyed
