"""Labels of containers, with a real engine."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing

import pytest
from agents.sandbox.sandboxes.docker import DockerSandboxClientOptions, DockerSandboxSessionState
from agents.sandbox.session.sandbox_session import SandboxSession
from contract.labelled import (
    LABELS,
    WithSession,
    find_ids,
)
from docker.errors import NotFound
from docker_engine import IMAGE, DockerEngine

from sandbox_docker import DockerProvider, sandbox_client_provider
from sandbox_docker.client import ThreadedDockerSandboxClient

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")

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
def left(engine: DockerEngine) -> Callable[[], list[object]]:
    """What the engine has: containers, and volumes with labels."""
    return lambda: [*engine.client.containers.list(all=True), *engine.client.volumes.list()]


class TestFind(WithSession):
    """The containers of an engine."""

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
        assert both == set(await find_ids(provider, client, LABELS))
        assert await provider.exists(client, provider.identity(session.state))

    async def test_a_container_is_found_whose_create_was_killed(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        left: Callable[[], list[object]],
    ) -> None:
        """It has its labels from the moment it exists."""
        with closing(engine.client.events(filters={"type": "container"}, decode=True)) as events:
            creating = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CREATE, json.dumps(LABELS)), stdout=asyncio.subprocess.PIPE
            )
            created = next(event for event in events if event["Action"] == "create")
            creating.kill()
            said, _ = await creating.communicate()
        found = await find_ids(provider, client, LABELS)
        for sandbox_id in found:
            await provider.destroy(client, sandbox_id)

        assert b"" == said
        assert [created["Actor"]["ID"]] == found
        assert [] == left()

    async def test_no_answer_is_not_an_empty_list(
        self, client: ThreadedDockerSandboxClient, engine: DockerEngine, provider: DockerProvider
    ) -> None:
        """The container may well be there."""
        client.docker_client.api.timeout = 0.2
        with engine.halted(), pytest.raises(Exception, match="timed out"):
            await provider.find(client, LABELS)


class TestRelabel(WithSession):
    """Labels that change, of a container whose own cannot."""

    async def test_with_a_pruned_volume_leaves_the_container_without_owner(
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
        lost = await find_ids(provider, client, {"made-for": "request-1"})
        await provider.relabel(client, sandbox_id, {"owner.workflow": "third"})

        assert [] == lost
        assert [sandbox_id] == await find_ids(
            provider, client, {**LABELS, "owner.workflow": "third"}
        )

    async def test_of_a_container_that_was_started_again(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
        left: Callable[[], list[object]],
    ) -> None:
        """An engine without a bridge, like this one, does not rename it."""
        sandbox_id = provider.identity(session.state)
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second"})
        container = engine.client.containers.get(sandbox_id)
        container.kill()
        container.start()
        for owner in ("third", "fourth"):
            await provider.relabel(client, sandbox_id, {"owner.workflow": owner})
        found = [
            await find_ids(provider, client, {**LABELS, "owner.workflow": owner})
            for owner in ("first", "second", "third", "fourth")
        ]
        await provider.destroy(client, sandbox_id)

        assert [[], [], [], [sandbox_id]] == found
        assert [] == left()

    async def test_leaves_one_volume(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
    ) -> None:
        """However often, and however many at once."""
        sandbox_id = provider.identity(session.state)
        for owner in ("second", "third", "first"):
            new = {"owner.workflow": owner}
            await asyncio.gather(*(provider.relabel(client, sandbox_id, new) for _ in range(4)))

        assert 1 == len(engine.client.volumes.list())

    async def test_of_a_container_that_is_gone_is_an_error(
        self,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
        left: Callable[[], list[object]],
    ) -> None:
        """And leaves nothing."""
        await provider.destroy(client, provider.identity(session.state))

        with pytest.raises(NotFound):
            await provider.relabel(client, provider.identity(session.state), {"a": "b"})
        assert [] == left()


class TestDestroy(WithSession):
    """Nothing is left of a container that was relabelled."""

    async def test_removes_the_labels_of_a_container_removed_by_others(
        self,
        engine: DockerEngine,
        provider: DockerProvider,
        client: ThreadedDockerSandboxClient,
        session: SandboxSession,
        left: Callable[[], list[object]],
    ) -> None:
        """It is not found meanwhile."""
        sandbox_id = provider.identity(session.state)
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second"})
        engine.remove_containers()
        found = await find_ids(provider, client, {"owner.workflow": "second"})
        await provider.destroy(client, sandbox_id)

        assert [] == found
        assert [] == left()


class TestSession(WithSession):
    """Labels, and the session that a container was made for."""

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
