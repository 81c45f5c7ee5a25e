"""Labels of containers, at a real engine."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest
from agents.sandbox.sandboxes.docker import DockerSandboxClientOptions, DockerSandboxSessionState
from agents.sandbox.session.sandbox_session import SandboxSession
from docker.errors import NotFound  # type: ignore[import-untyped]
from docker_engine import IMAGE, DockerEngine

from sandbox_core.providers import SupportsLabels
from sandbox_docker import DockerProvider, sandbox_client_provider
from sandbox_docker.client import ThreadedDockerSandboxClient

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")

OPTIONS = DockerSandboxClientOptions(image=IMAGE)
OWNER = {"owner.namespace": "default", "owner.workflow": "first"}
LABELS = {**OWNER, "made-for": "request-1"}
AWKWARD = {
    "spaces": " a b ",
    "unicode": "größe 大小 🦀",
    "equals": "a=b==c",
    "comma": "a,b",
    "quotes": '"it\'s" {\\} $HOME',
    "long": "x" * 1000,
    "empty": "",
}

# Creates a container with the labels in $1, and would say so.
CREATE = f"""\
import asyncio, json, sys
from agents.sandbox.sandboxes.docker import DockerSandboxClientOptions
from sandbox_docker import sandbox_client_provider

client = sandbox_client_provider().create_client().labelled(json.loads(sys.argv[1]))
asyncio.run(client.create(options=DockerSandboxClientOptions(image={IMAGE!r})))
print("answered")
"""


@pytest.fixture
def provider(engine: DockerEngine) -> DockerProvider:
    return sandbox_client_provider()


@pytest.fixture
async def client(
    engine: DockerEngine, provider: DockerProvider
) -> AsyncIterator[ThreadedDockerSandboxClient]:
    made = provider.create_client()
    yield made
    made.close()
    for volume in engine.client.volumes.list():
        volume.remove(force=True)


@pytest.fixture
async def session(provider: DockerProvider, client: ThreadedDockerSandboxClient) -> SandboxSession:
    return await provider.labelled(client, LABELS).create(options=OPTIONS)


async def _found(
    provider: DockerProvider, client: ThreadedDockerSandboxClient, labels: Mapping[str, str]
) -> list[str]:
    return [found.sandbox_id for found in await provider.find(client, labels)]


def _left(engine: DockerEngine) -> tuple[list[object], list[object]]:
    """Return the containers and the volumes that the engine has."""
    return engine.client.containers.list(all=True), engine.client.volumes.list()


def test_the_provider_supports_labels(provider: DockerProvider) -> None:
    """As the core asks for it."""
    assert isinstance(provider, SupportsLabels)


class TestFind:
    """What is found, and what is not."""

    async def test_a_container_is_found_by_all_or_some_of_its_labels_only(
        self,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """Not by another value of one, nor by one that it has not."""
        (found,) = await provider.find(client, LABELS)
        age = datetime.now(timezone.utc) - (found.created or datetime.min)

        assert provider.identity(session.state) == found.sandbox_id
        assert LABELS.items() <= found.labels.items()
        assert timedelta(0) <= age < timedelta(minutes=1)
        assert [found.sandbox_id] == await _found(provider, client, OWNER)
        assert [] == await _found(provider, client, {**LABELS, "made-for": "request-2"})
        assert [] == await _found(provider, client, {**LABELS, "more": ""})

    async def test_no_container_of_another_client_is_found(
        self,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """The client that labels is another one than that which it was made of."""
        await client.create(options=OPTIONS)
        other = await provider.labelled(client, {**LABELS, "made-for": "2"}).create(options=OPTIONS)
        both = {provider.identity(session.state), provider.identity(other.state)}

        assert both == set(await _found(provider, client, OWNER))

    async def test_a_container_that_does_not_run_is_found(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """Whether it has stopped or was never started."""
        await session.shutdown()
        never_started = engine.client.containers.create(IMAGE, "true", labels=LABELS)
        both = {provider.identity(session.state), never_started.id}

        assert [] == engine.client.containers.list()
        assert both == set(await _found(provider, client, LABELS))

    async def test_any_value_is_kept_and_found(
        self, provider: DockerProvider, client: ThreadedDockerSandboxClient
    ) -> None:
        """A workflow id may be any text."""
        session = await provider.labelled(client, AWKWARD).create(options=OPTIONS)
        sandbox_id = provider.identity(session.state)
        (found,) = await provider.find(client, AWKWARD)
        await provider.relabel(client, sandbox_id, {"more": AWKWARD["unicode"]})
        (again,) = await provider.find(client, {**AWKWARD, "more": AWKWARD["unicode"]})

        assert (sandbox_id, sandbox_id) == (found.sandbox_id, again.sandbox_id)
        assert AWKWARD.items() <= found.labels.items()
        for name, value in AWKWARD.items():
            assert [] == await _found(provider, client, {name: f"{value}."})

    async def test_a_container_is_found_whose_create_was_killed(
        self, engine: DockerEngine, provider: DockerProvider, client: ThreadedDockerSandboxClient
    ) -> None:
        """It has its labels from the moment it exists."""
        with closing(engine.client.events(filters={"type": "container"}, decode=True)) as events:
            creating = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CREATE, json.dumps(LABELS)), stdout=asyncio.subprocess.PIPE
            )
            created = next(event for event in events if event["Action"] == "create")
            creating.kill()
            said, _ = await creating.communicate()
        found = await _found(provider, client, LABELS)
        for sandbox_id in found:
            await provider.destroy(client, sandbox_id)

        assert b"" == said
        assert [created["Actor"]["ID"]] == found
        assert ([], []) == _left(engine)

    async def test_an_engine_that_does_not_answer_has_not_said_none(
        self, client: ThreadedDockerSandboxClient, engine: DockerEngine, provider: DockerProvider
    ) -> None:
        """The container may well be there."""
        client.docker_client.api.timeout = 0.2
        with engine.halted(), pytest.raises(Exception, match="timed out"):
            await provider.find(client, LABELS)


class TestRelabel:
    """Labels that change, of a container whose own cannot."""

    async def test_changes_what_it_names_and_keeps_the_rest(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """However often; the container is not found by what it had before."""
        sandbox_id = provider.identity(session.state)
        for owner in ("second", "third", "first", "fourth"):
            await provider.relabel(client, sandbox_id, {"owner.workflow": owner})
            (found,) = await provider.find(client, {**LABELS, "owner.workflow": owner})
            assert {**LABELS, "owner.workflow": owner}.items() <= found.labels.items()
        await provider.relabel(client, sandbox_id, {"more": "yes"})

        last = {**LABELS, "owner.workflow": "fourth", "more": "yes"}
        assert [sandbox_id] == await _found(provider, client, last)
        assert [] == await _found(provider, client, LABELS)
        assert [] == await _found(provider, client, {"owner.workflow": "third"})
        assert 1 == len(engine.client.volumes.list())

    async def test_concerns_that_container_only(
        self,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """Others of the same owner stay the owner's."""
        other = await provider.labelled(client, LABELS).create(options=OPTIONS)
        await provider.relabel(client, provider.identity(session.state), {"owner.workflow": "2"})

        assert [provider.identity(other.state)] == await _found(provider, client, LABELS)

    async def test_whose_volume_was_pruned_leaves_a_container_that_nobody_owns(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """To find it by its first labels would be to take it from its owner."""
        sandbox_id = provider.identity(session.state)
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second"})
        for volume in engine.client.volumes.list():
            volume.remove()
        lost = await _found(provider, client, {"made-for": "request-1"})
        await provider.relabel(client, sandbox_id, {"owner.workflow": "third"})

        assert [] == lost
        assert [sandbox_id] == await _found(provider, client, {**LABELS, "owner.workflow": "third"})

    async def test_may_be_repeated(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """An answer may have been lost, and the first attempt may still be under way."""
        sandbox_id = provider.identity(session.state)
        new = {"owner.workflow": "second"}
        await asyncio.gather(*(provider.relabel(client, sandbox_id, new) for _ in range(4)))
        await provider.relabel(client, sandbox_id, new)

        assert [sandbox_id] == await _found(provider, client, {**LABELS, **new})
        assert 1 == len(engine.client.volumes.list())

    async def test_of_a_container_that_is_gone_is_an_error(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """And leaves nothing."""
        await provider.destroy(client, provider.identity(session.state))

        with pytest.raises(NotFound):
            await provider.relabel(client, provider.identity(session.state), {"a": "b"})
        assert ([], []) == _left(engine)


class TestDestroy:
    """Nothing is left of a container that was relabelled."""

    @pytest.mark.parametrize("by", ["provider", "client"])
    async def test_removes_its_labels(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
        by: str,
    ) -> None:
        """By its id alone, or with its session; once more is no error."""
        sandbox_id = provider.identity(session.state)
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second"})
        if by == "client":
            await client.delete(session)
        await provider.destroy(client, sandbox_id)
        await provider.destroy(client, sandbox_id)

        assert [] == await _found(provider, client, {"made-for": "request-1"})
        assert ([], []) == _left(engine)

    async def test_removes_the_labels_of_a_container_that_somebody_has_removed(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """It is not found meanwhile."""
        sandbox_id = provider.identity(session.state)
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second"})
        engine.remove_containers()
        found = await _found(provider, client, {"owner.workflow": "second"})
        await provider.destroy(client, sandbox_id)

        assert [] == found
        assert ([], []) == _left(engine)


class TestSession:
    """Labels, and the session that a container was made for."""

    async def test_state_does_not_hold_them(self, session: SandboxSession) -> None:
        """They are the worker's affair, not the workflow's."""
        assert isinstance(session.state, DockerSandboxSessionState)
        assert {} == session.state.labels
        assert "request-1" not in session.state.model_dump_json()

    async def test_the_users_own_labels_are_there_beside_them(
        self, engine: DockerEngine, provider: DockerProvider, client: ThreadedDockerSandboxClient
    ) -> None:
        """A resume checks the user's, and a replacement has both."""
        labelled = provider.labelled(client, LABELS)
        options = DockerSandboxClientOptions(image=IMAGE, labels={"team": "blue"})
        session = await labelled.create(options=options)
        await provider.relabel(client, provider.identity(session.state), {"owner.workflow": "2"})
        resumed = await client.resume(session.state.model_copy())
        same = resumed.state.model_dump() == session.state.model_dump()
        engine.remove_containers()
        replaced = await labelled.resume(session.state)

        assert same
        assert {**LABELS, "team": "blue"} == engine.client.containers.get(
            provider.identity(replaced.state)
        ).labels
        assert isinstance(replaced.state, DockerSandboxSessionState)
        assert {"team": "blue"} == replaced.state.labels

    async def test_a_resume_labels_the_replacement_of_a_container_that_is_gone(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """With the labels of the client that resumes, which nobody else has."""
        engine.remove_containers()
        later = {**LABELS, "made-for": "request-2"}
        resumed = await provider.labelled(client, later).resume(session.state)
        await resumed.start()

        assert [provider.identity(resumed.state)] == await _found(provider, client, later)
        assert [] == await _found(provider, client, LABELS)
