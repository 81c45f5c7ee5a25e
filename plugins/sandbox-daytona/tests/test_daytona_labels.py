"""Labels of Daytona's sandboxes: the vendor's SDK against the loopback server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from agents.extensions.sandbox.daytona import DaytonaSandboxClientOptions
from agents.sandbox.session import SandboxSession
from daytona import DaytonaAuthenticationError, DaytonaNotFoundError, DaytonaTimeoutError
from daytona_loopback import DaytonaLoopback

from sandbox_core.providers import SupportsLabels
from sandbox_daytona import DaytonaProvider, sandbox_client_provider
from sandbox_daytona.client import LabellingDaytonaSandboxClient

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
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaytonaLoopback]:
    with DaytonaLoopback(tmp_path) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def provider() -> DaytonaProvider:
    return sandbox_client_provider()


@pytest.fixture
async def client(
    server: DaytonaLoopback, provider: DaytonaProvider
) -> AsyncIterator[LabellingDaytonaSandboxClient]:
    made = provider.create_client()
    async with made:
        yield made


@pytest.fixture
async def session(
    provider: DaytonaProvider, client: LabellingDaytonaSandboxClient
) -> SandboxSession:
    return await _create(provider, client, LABELS)


async def _create(
    provider: DaytonaProvider, client: LabellingDaytonaSandboxClient, labels: Mapping[str, str]
) -> SandboxSession:
    return await provider.labelled(client, labels).create(options=provider.default_options())


async def _found(
    provider: DaytonaProvider, client: LabellingDaytonaSandboxClient, labels: Mapping[str, str]
) -> list[str]:
    return [found.sandbox_id for found in await provider.find(client, labels)]


def test_the_provider_supports_labels(provider: DaytonaProvider) -> None:
    """As the core asks for it."""
    assert isinstance(provider, SupportsLabels)


class TestFind:
    """What is found, and what is not."""

    async def test_a_sandbox_is_found_by_all_or_some_of_its_labels_only(
        self,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        session: SandboxSession,
    ) -> None:
        """Not by another value of one, nor by one that it has not."""
        (found,) = await provider.find(client, LABELS)
        assert found.created is not None
        age = datetime.now(timezone.utc) - found.created

        assert provider.identity(session.state) == found.sandbox_id
        assert LABELS.items() <= found.labels.items()
        assert timedelta(0) <= age < timedelta(minutes=1)
        assert [found.sandbox_id] == await _found(provider, client, OWNER)
        assert [] == await _found(provider, client, {**LABELS, "made-for": "request-2"})
        assert [] == await _found(provider, client, {**LABELS, "more": ""})

    async def test_no_sandbox_of_another_client_is_found(
        self,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        session: SandboxSession,
    ) -> None:
        """The client that labels is another one than that which it was made of."""
        await client.create(options=provider.default_options())
        other = await _create(provider, client, {**LABELS, "made-for": "request-2"})
        both = {provider.identity(session.state), provider.identity(other.state)}

        assert both == set(await _found(provider, client, OWNER))

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

        assert [provider.identity(session.state)] == await _found(provider, client, LABELS)

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
        assert [provider.identity(session.state)] == await _found(provider, client, LABELS)

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

        assert [] == await _found(provider, client, LABELS)
        assert not await provider.exists(client, sandbox.id)

    async def test_every_page_of_the_list_is_read(
        self,
        server: DaytonaLoopback,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
    ) -> None:
        """The last one counts, whether it is full or not."""
        server.page_size = 2
        made = [
            provider.identity((await _create(provider, client, LABELS)).state) for _ in range(4)
        ]
        full = await _found(provider, client, LABELS)
        made.append(provider.identity((await _create(provider, client, LABELS)).state))

        assert made[:4] == full
        assert made == await _found(provider, client, LABELS)

    async def test_any_value_is_kept_and_found(
        self, provider: DaytonaProvider, client: LabellingDaytonaSandboxClient
    ) -> None:
        """A workflow id may be any text."""
        session = await _create(provider, client, AWKWARD)
        (found,) = await provider.find(client, AWKWARD)

        assert provider.identity(session.state) == found.sandbox_id
        assert AWKWARD.items() <= found.labels.items()
        for name, value in AWKWARD.items():
            assert [] == await _found(provider, client, {name: f"{value}."})

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
        found = await _found(provider, client, LABELS)
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
        assert list(server.sandboxes) == await _found(provider, client, LABELS)

    async def test_an_answer_that_does_not_come_is_not_a_none(
        self, server: DaytonaLoopback, provider: DaytonaProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A wrong key raises; the sandbox may well be there."""
        monkeypatch.setenv("DAYTONA_API_KEY", "wrong")
        async with provider.create_client() as client:
            with pytest.raises(DaytonaAuthenticationError):
                await provider.find(client, LABELS)


class TestRelabel:
    """Labels that change."""

    async def test_changes_what_it_names_and_keeps_the_rest(
        self,
        server: DaytonaLoopback,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        session: SandboxSession,
    ) -> None:
        """Also what Daytona has put there itself."""
        sandbox_id = provider.identity(session.state)
        before = dict(server.sandboxes[sandbox_id].labels)
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second", "more": "yes"})
        after = server.sandboxes[sandbox_id].labels

        assert {**before, "owner.workflow": "second", "more": "yes"} == after
        assert set(LABELS) < set(before)
        assert [] == await _found(provider, client, LABELS)
        assert [sandbox_id] == await _found(provider, client, {**LABELS, **after})

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

        assert [] == await _found(provider, client, OWNER)
        assert "second" == found.labels["owner.workflow"]

    async def test_of_a_sandbox_that_is_gone_is_an_error(
        self,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        session: SandboxSession,
    ) -> None:
        """Nothing is there that could have labels."""
        await provider.destroy(client, provider.identity(session.state))

        assert [] == await _found(provider, client, LABELS)
        with pytest.raises(DaytonaNotFoundError):
            await provider.relabel(client, provider.identity(session.state), {"a": "b"})


class TestSession:
    """Labels, and the session that a sandbox was made for."""

    async def test_state_does_not_hold_them(self, session: SandboxSession) -> None:
        """They are the worker's affair, not the workflow's."""
        assert "request-1" not in session.state.model_dump_json()

    async def test_a_resume_labels_the_replacement_of_a_sandbox_that_is_gone(
        self,
        provider: DaytonaProvider,
        client: LabellingDaytonaSandboxClient,
        session: SandboxSession,
    ) -> None:
        """With the labels of the client that resumes."""
        await client.delete(session)
        later = {**LABELS, "made-for": "request-2"}
        resumed = await provider.labelled(client, later).resume(session.state)

        assert [provider.identity(resumed.state)] == await _found(provider, client, later)
        assert [] == await _found(provider, client, LABELS)
