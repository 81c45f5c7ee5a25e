"""Labels of Daytona's sandboxes: the vendor's SDK against the loopback server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import pytest
from agents.extensions.sandbox.daytona import DaytonaSandboxClientOptions
from agents.sandbox.session import SandboxSession
from contract.labelled import (
    LABELS,
    OWNER,
    WithSession,
    create,
    find_ids,
)
from daytona import DaytonaAuthenticationError, DaytonaNotFoundError, DaytonaTimeoutError
from daytona_loopback import DaytonaLoopback

from sandbox_daytona import DaytonaProvider
from sandbox_daytona.client import LabellingDaytonaSandboxClient

pytest_plugins = ["daytona_fixtures"]

# Creates a sandbox with the labels in $1, and would say so.
CREATE = """\
import asyncio, json, sys
from sandbox_daytona import sandbox_client_provider

async def main():
    provider = sandbox_client_provider()
    client = provider.labelled(provider.create_client(), json.loads(sys.argv[1]))
    await client.create(options=provider.default_options())
    print("answered")

asyncio.run(main())
"""


@pytest.fixture
async def client(
    server: DaytonaLoopback, provider: DaytonaProvider
) -> AsyncIterator[LabellingDaytonaSandboxClient]:
    made = provider.create_client()
    async with made:
        yield made


class TestFind(WithSession):
    """The sandboxes of an organization."""

    @pytest.mark.parametrize(
        "options",
        [
            DaytonaSandboxClientOptions(),
            DaytonaSandboxClientOptions(image="python:3.12"),
            DaytonaSandboxClientOptions(sandbox_snapshot_name="some-snapshot"),
        ],
        ids=["default", "image", "snapshot"],
    )
    async def test_a_sandbox_is_found_whatever_it_was_made_of(
        self,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        options: DaytonaSandboxClientOptions,
    ) -> None:
        """The SDK asks for each in another way."""
        session = await provider.labelled(client, LABELS).create(options=options)

        assert [provider.identity(session.state)] == await find_ids(provider, client, LABELS)

    async def test_a_sandbox_that_does_not_run_is_found(
        self,
        server: DaytonaLoopback,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
    ) -> None:
        """Stopped, it costs its disk."""
        options = DaytonaSandboxClientOptions(pause_on_exit=True)
        session = await provider.labelled(client, LABELS).create(options=options)
        await client.delete(session)

        assert ["stopped"] == [sandbox.state for sandbox in server.sandboxes.values()]
        assert [provider.identity(session.state)] == await find_ids(provider, client, LABELS)

    @pytest.mark.parametrize(
        ("state", "desired"),
        [("destroying", "destroyed"), ("destroyed", "destroyed"), ("started", "destroyed")],
    )
    async def test_a_sandbox_that_is_being_deleted_is_not_found(
        self,
        server: DaytonaLoopback,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        session: SandboxSession,
        state: str,
        desired: str,
    ) -> None:
        """Daytona answers before it has begun, and lists it until it is done."""
        (sandbox,) = server.sandboxes.values()
        sandbox.state, sandbox.desired_state = state, desired

        assert [] == await find_ids(provider, client, LABELS)
        assert not await provider.exists(client, sandbox.id)

    async def test_every_page_of_the_list_is_read(
        self,
        server: DaytonaLoopback,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
    ) -> None:
        """The last one counts, whether it is full or not."""
        server.page_size = 2
        made = [provider.identity((await create(provider, client, LABELS)).state) for _ in range(4)]
        full = await find_ids(provider, client, LABELS)
        made.append(provider.identity((await create(provider, client, LABELS)).state))

        assert made[:4] == full
        assert made == await find_ids(provider, client, LABELS)

    async def test_a_sandbox_is_found_whose_create_was_given_up(
        self,
        server: DaytonaLoopback,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
    ) -> None:
        """Daytona goes on with it, and the SDK's client forgets it."""
        server.starts_at_once = False
        options = DaytonaSandboxClientOptions(create_timeout=1)
        with pytest.raises(DaytonaTimeoutError):
            await provider.labelled(client, LABELS).create(options=options)
        found = await find_ids(provider, client, LABELS)
        for sandbox_id in found:
            await provider.destroy(client, sandbox_id)

        assert 1 == len(found)
        assert {} == dict(server.sandboxes)

    async def test_a_sandbox_is_found_whose_create_was_killed(
        self,
        server: DaytonaLoopback,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
    ) -> None:
        """It has its labels from the moment it exists."""
        server.starts_at_once = False
        creating = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CREATE, json.dumps(LABELS)), stdout=asyncio.subprocess.PIPE
        )
        assert await asyncio.to_thread(server.creating.wait, 60)
        creating.kill()
        said, _ = await creating.communicate()

        assert b"" == said
        assert list(server.sandboxes) == await find_ids(provider, client, LABELS)

    async def test_no_answer_is_not_an_empty_list(
        self, server: DaytonaLoopback, provider: DaytonaProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wrong key raises; the sandbox may well be there."""
        monkeypatch.setenv("DAYTONA_API_KEY", "wrong")
        async with provider.create_client() as client:
            with pytest.raises(DaytonaAuthenticationError):
                await provider.find(client, LABELS)


class TestRelabel(WithSession):
    """Labels that change, and a list that hears of it later."""

    async def test_keeps_what_daytona_has_put_there_itself(
        self,
        server: DaytonaLoopback,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        session: SandboxSession,
    ) -> None:
        """Daytona sets all labels at once."""
        sandbox_id = provider.identity(session.state)
        before = dict(server.sandboxes[sandbox_id].labels)
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second"})

        assert set(LABELS) < set(before)
        assert {**before, "owner.workflow": "second"} == server.sandboxes[sandbox_id].labels

    async def test_holds_for_find_before_the_list_has_heard_of_it(
        self,
        server: DaytonaLoopback,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        session: SandboxSession,
    ) -> None:
        """The list is eventually consistent; its last owner must not find the sandbox."""
        sandbox_id = provider.identity(session.state)
        server.sandboxes[sandbox_id].listed_labels = LABELS
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second"})
        (found,) = await provider.find(client, {"made-for": "request-1"})

        assert [] == await find_ids(provider, client, OWNER)
        assert "second" == found.labels["owner.workflow"]

    async def test_of_a_sandbox_that_is_gone_is_an_error(
        self,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        session: SandboxSession,
    ) -> None:
        """Nothing is there that could have labels."""
        await provider.destroy(client, provider.identity(session.state))

        assert [] == await find_ids(provider, client, LABELS)
        with pytest.raises(DaytonaNotFoundError):
            await provider.relabel(client, provider.identity(session.state), {"a": "b"})
