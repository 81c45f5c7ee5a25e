"""What the contract promises of a provider with every optional ability, at a real backend.

A plugin's tests subclass these classes, and have fixtures `provider`, `client` and `left`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

import pytest
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.providers import (
    SupportsDestroy,
    SupportsExists,
    SupportsIdentity,
    SupportsLabels,
)

Client = BaseSandboxClient[Any]

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


class Provider(
    SupportsIdentity, SupportsExists[Any], SupportsDestroy[Any], SupportsLabels[Any], Protocol
):
    """The abilities that these promises are about."""

    def default_options(self) -> BaseSandboxClientOptions:
        """Return the options of a create that names none."""
        ...


async def create(provider: Provider, client: Client, labels: Mapping[str, str]) -> SandboxSession:
    """Make a sandbox with these labels."""
    labelled: Client = provider.labelled(client, labels)
    return await labelled.create(options=provider.default_options())


async def find_ids(provider: Provider, client: Client, labels: Mapping[str, str]) -> list[str]:
    """Return the ids of the sandboxes that have all of these labels."""
    return [sandbox.sandbox_id for sandbox in await provider.find(client, labels)]


class WithSession:
    """Tests of one labelled sandbox."""

    @pytest.fixture
    async def session(self, provider: Provider, client: Client) -> SandboxSession:
        return await create(provider, client, LABELS)


class FindPromises(WithSession):
    """What is found, and what is not."""

    async def test_a_sandbox_is_found_by_all_or_some_of_its_labels_only(
        self, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """Not by another value of one, nor by one that it has not."""
        (sandbox,) = await provider.find(client, LABELS)
        assert sandbox.created is not None
        age = datetime.now(timezone.utc) - sandbox.created

        assert provider.identity(session.state) == sandbox.sandbox_id
        assert LABELS.items() <= sandbox.labels.items()
        assert timedelta(0) <= age < timedelta(minutes=1)
        assert [sandbox.sandbox_id] == await find_ids(provider, client, OWNER)
        assert [] == await find_ids(provider, client, {**LABELS, "made-for": "request-2"})
        assert [] == await find_ids(provider, client, {**LABELS, "more": ""})

    async def test_no_sandbox_of_another_client_is_found(
        self, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """The client that labels is another one than that which it was made of."""
        await client.create(options=provider.default_options())
        other = await create(provider, client, {**LABELS, "made-for": "request-2"})
        both = {provider.identity(session.state), provider.identity(other.state)}

        assert both == set(await find_ids(provider, client, OWNER))

    async def test_any_value_is_kept_and_found(self, provider: Provider, client: Client) -> None:
        """A workflow id may be any text."""
        session = await create(provider, client, AWKWARD)
        sandbox_id = provider.identity(session.state)
        (sandbox,) = await provider.find(client, AWKWARD)
        await provider.relabel(client, sandbox_id, {"more": AWKWARD["unicode"]})
        (again,) = await provider.find(client, {**AWKWARD, "more": AWKWARD["unicode"]})

        assert (sandbox_id, sandbox_id) == (sandbox.sandbox_id, again.sandbox_id)
        assert AWKWARD.items() <= sandbox.labels.items()
        for name, value in AWKWARD.items():
            assert [] == await find_ids(provider, client, {name: f"{value}."})


class RelabelPromises(WithSession):
    """Labels that change."""

    async def test_changes_what_it_names_and_keeps_the_rest(
        self, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """However often; the sandbox is not found by what it had before."""
        sandbox_id = provider.identity(session.state)
        (before,) = await provider.find(client, LABELS)
        for owner in ("second", "third", "first", "fourth"):
            await provider.relabel(client, sandbox_id, {"owner.workflow": owner})
            assert [sandbox_id] == await find_ids(
                provider, client, {**LABELS, "owner.workflow": owner}
            )
        await provider.relabel(client, sandbox_id, {"more": "yes"})
        (after,) = await provider.find(client, {"owner.workflow": "fourth", "more": "yes"})

        assert (sandbox_id, before.created) == (after.sandbox_id, after.created)
        last = {**before.labels, "owner.workflow": "fourth", "more": "yes"}
        assert last.items() <= after.labels.items()
        assert [] == await find_ids(provider, client, LABELS)
        assert [] == await find_ids(provider, client, {"owner.workflow": "third"})

    async def test_concerns_that_sandbox_only(
        self, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """Others of the same owner stay the owner's."""
        other = await create(provider, client, LABELS)
        await provider.relabel(client, provider.identity(session.state), {"owner.workflow": "2"})

        assert [provider.identity(other.state)] == await find_ids(provider, client, LABELS)

    async def test_may_be_repeated(
        self, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """An answer may have been lost, and the first attempt may still be under way."""
        sandbox_id = provider.identity(session.state)
        new = {"owner.workflow": "second"}
        await asyncio.gather(*(provider.relabel(client, sandbox_id, new) for _ in range(4)))
        await provider.relabel(client, sandbox_id, new)

        assert [sandbox_id] == await find_ids(provider, client, {**LABELS, **new})


class DestroyPromises(WithSession):
    """Nothing is left of a sandbox, nor of its labels."""

    @pytest.mark.parametrize("by", ["provider", "client"])
    async def test_a_sandbox_exists_until_it_is_destroyed(
        self,
        provider: Provider,
        client: Client,
        session: SandboxSession,
        left: Callable[[], list[object]],
        by: str,
    ) -> None:
        """By its id alone, or with its session; once more is no error."""
        sandbox_id = provider.identity(session.state)
        created = await provider.exists(client, sandbox_id)
        await provider.relabel(client, sandbox_id, {"owner.workflow": "second"})
        if by == "client":
            await client.delete(session)
        else:
            await provider.destroy(client, sandbox_id)
        destroyed = await provider.exists(client, sandbox_id)
        await provider.destroy(client, sandbox_id)

        assert (True, False) == (created, destroyed)
        assert [] == await find_ids(provider, client, {"made-for": "request-1"})
        assert [] == left()


class SessionPromises(WithSession):
    """Labels, and the session that a sandbox was made for."""

    async def test_state_does_not_hold_them(self, session: SandboxSession) -> None:
        """They are the worker's affair, not the workflow's."""
        assert "request-1" not in session.state.model_dump_json()

    async def test_a_resume_labels_the_replacement_of_a_sandbox_that_is_gone(
        self, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """With the labels of the client that resumes, which nobody else has."""
        await provider.destroy(client, provider.identity(session.state))
        later = {**LABELS, "made-for": "request-2"}
        labelled: Client = provider.labelled(client, later)
        resumed = await labelled.resume(session.state)
        await resumed.start()

        assert [provider.identity(resumed.state)] == await find_ids(provider, client, later)
        assert [] == await find_ids(provider, client, LABELS)
