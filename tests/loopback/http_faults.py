"""Tests for a provider of a hosted service, against a loopback server with injected faults.

A plugin's tests subclass these classes, and have fixtures `server`, `provider` and `client`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Protocol

import pytest
from agents.sandbox.errors import SandboxError
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from support import running_worker, unique, until
from temporalio.client import Client as Temporal
from temporalio.client import WorkflowHandle
from workflows.creates import CreateAndHold, Hold

from loopback.faults import FaultyServer
from sandbox_core.errors import AtCapacity
from sandbox_core.providers import (
    SupportsCheck,
    SupportsDestroy,
    SupportsExists,
    SupportsIdentity,
)
from sandbox_core.wire.failures import encode_error

Client = BaseSandboxClient[Any]


class Provider(
    SupportsIdentity, SupportsExists[Any], SupportsDestroy[Any], SupportsCheck[Any], Protocol
):
    """The abilities that every provider at a hosted service has."""

    name: str
    host_bound: bool

    def create_client(self) -> Client: ...

    def default_options(self) -> BaseSandboxClientOptions: ...


class HttpFaults:
    """What comes of an answer that is not the one that was asked for.

    A fault at the level of HTTP keeps whether it is worth another attempt, and leaves nothing.
    """

    create: ClassVar[str]
    """The request that makes a sandbox, as `POST /sandboxes`; paths are regular expressions."""

    lookup: ClassVar[str]
    """The request that asks for one."""

    delete: ClassVar[str]
    execute: ClassVar[str]
    """The request that runs a command."""

    listing: ClassVar[str]
    """The request of `check`."""

    at_capacity: ClassVar[tuple[int, object]]
    """How the vendor says that there are as many sandboxes as may be: status and body."""

    forbidden: ClassVar[Sequence[int]] = (401, 403)

    refused_for_now: ClassVar[Sequence[int]] = (409, 429, 502)
    headers: ClassVar[Mapping[str, str]] = {}
    """What an answer has beside, so that the vendor's SDK does not ask once more by itself."""

    @pytest.fixture
    async def session(self, provider: Provider, client: Client) -> SandboxSession:
        """A session that was started."""
        created = await client.create(options=provider.default_options())
        await created.start()
        return created

    @pytest.fixture(autouse=True)
    def _answers_are_final(self, server: FaultyServer) -> None:
        server.fault_headers = self.headers

    async def test_a_create_that_is_refused_for_now_is_worth_another_attempt(
        self, server: FaultyServer, provider: Provider, client: Client
    ) -> None:
        """Nothing was made."""
        for status in self.refused_for_now:
            server.fail(self.create, status, times=100)
            with pytest.raises(Exception, match=r".") as raised:
                await client.create(options=provider.default_options())

            assert _is_worth_retrying(raised.value), repr(raised.value)
            assert not isinstance(raised.value, AtCapacity)
            server.faults.clear()
        assert {} == dict(server.machines)

    async def test_the_next_attempt_waits_as_long_as_the_vendor_says(
        self, server: FaultyServer, provider: Provider, client: Client
    ) -> None:
        """Whether the vendor's SDK keeps it or not."""
        headers = {**self.headers, "Retry-After": "7"}
        server.fail(self.create, self.refused_for_now[0], headers=headers, times=100)
        with pytest.raises(Exception, match=r".") as raised:
            await client.create(options=provider.default_options())

        assert timedelta(seconds=7) == encode_error(raised.value).next_retry_delay

    async def test_expired_credentials_end_a_create_at_once(
        self, server: FaultyServer, provider: Provider, client: Client
    ) -> None:
        """No attempt will be better."""
        for status in self.forbidden:
            server.fail(self.create, status, times=100)
            with pytest.raises(Exception, match=r".") as raised:
                await client.create(options=provider.default_options())

            assert not _is_worth_retrying(raised.value), repr(raised.value)
            server.faults.clear()
        assert {} == dict(server.machines)

    async def test_the_vendors_limit_is_waited_for(
        self, server: FaultyServer, provider: Provider, client: Client
    ) -> None:
        """As the worker's own limit is."""
        status, body = self.at_capacity
        server.fail(self.create, status, body=body, times=100)

        with pytest.raises(AtCapacity, match=provider.name):
            await client.create(options=provider.default_options())
        assert {} == dict(server.machines)

    async def test_a_worker_passes_on_how_long_the_vendor_says_to_wait(
        self, server: FaultyServer, provider: Provider, client: Client
    ) -> None:
        """Whether the vendor's SDK keeps it or not."""
        status, body = self.at_capacity
        headers = {**self.headers, "Retry-After": "7"}
        server.fail(self.create, status, headers=headers, body=body, times=100)

        with pytest.raises(AtCapacity) as full:
            await client.create(options=provider.default_options())
        assert timedelta(seconds=7) == full.value.next_retry_delay

    async def test_a_workflow_waits_for_the_vendors_limit(
        self, server: FaultyServer, provider: Provider, temporal_client: Temporal
    ) -> None:
        """Until there is room, for as long as it may."""
        status, body = self.at_capacity
        full = server.fail(self.create, status, body=body, times=100)
        async with running_worker(temporal_client, CreateAndHold) as queue:
            handle = await temporal_client.start_workflow(
                CreateAndHold.run, Hold(provider.name), id=unique("full"), task_queue=queue
            )
            await until(partial(_waits, handle))
            full.times = 0
            await handle.execute_update(CreateAndHold.root)
            made = len(server.machines)
            await handle.signal(CreateAndHold.finish)
            await handle.result()

        assert (1, {}) == (made, dict(server.machines))

    async def test_a_lookup_without_an_answer_is_not_a_no(
        self, server: FaultyServer, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """Neither of a server in trouble, nor of one that does not accept the credentials."""
        sandbox_id = provider.identity(session.state)
        for status, again in ((502, True), *((status, False) for status in self.forbidden)):
            server.fail(self.lookup, status, times=100)
            with pytest.raises(Exception, match=r".") as raised:
                await provider.exists(client, sandbox_id)

            assert again is _is_worth_retrying(raised.value), repr(raised.value)
            server.faults.clear()
        assert await provider.exists(client, sandbox_id)

    async def test_a_resume_without_an_answer_makes_no_second_sandbox(
        self, server: FaultyServer, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """The one that there is has the workspace."""
        state = client.deserialize_session_state(client.serialize_session_state(session.state))
        server.fail(self.lookup, 502, times=100)
        with pytest.raises(Exception, match=r".") as raised:
            await client.resume(state)

        assert _is_worth_retrying(raised.value), repr(raised.value)
        assert [provider.identity(session.state)] == list(server.machines)

    async def test_a_delete_that_is_refused_is_an_error(
        self, server: FaultyServer, provider: Provider, client: Client, session: SandboxSession
    ) -> None:
        """Nobody believes that the sandbox is gone; the next attempt deletes it."""
        server.fail(self.delete, 502, times=100)
        with pytest.raises(Exception, match=r".") as raised:
            await client.delete(session)
        left = list(server.machines)
        server.faults.clear()
        await client.delete(session)

        assert _is_worth_retrying(raised.value), repr(raised.value)
        assert [provider.identity(session.state)] == left
        assert {} == dict(server.machines)

    async def test_a_command_whose_answer_is_lost_is_not_run_again(
        self, server: FaultyServer, session: SandboxSession
    ) -> None:
        """It has been run, and may not be repeatable."""
        server.fail(self.execute, None)
        with contextlib.suppress(SandboxError):  # Unless the SDK gets the answer in the end.
            await session.exec("echo run >> counter")
        script = "until [ -s counter ]; do sleep 0.05; done; cat counter"
        shown = await session.exec(script, timeout=20)

        assert b"run\n" == shown.stdout

    async def test_expired_credentials_end_a_command_at_once(
        self, server: FaultyServer, session: SandboxSession
    ) -> None:
        """As an error of the sandbox, which the SDK's tools tell the model of."""
        server.fail(self.execute, 401, times=100)
        with pytest.raises(SandboxError) as raised:
            await session.exec("true")
        server.faults.clear()

        assert raised.value.retryable is not True

    async def test_check_tells_expired_credentials(
        self, server: FaultyServer, provider: Provider, client: Client
    ) -> None:
        """Before anything is created."""
        for status in self.forbidden:
            server.fail(self.listing, status, times=100)
            with pytest.raises(Exception, match=r"."):
                await provider.check(client)
            server.faults.clear()


async def _waits(handle: WorkflowHandle[Any, Any]) -> bool:
    return any(
        b"waiting for room: " in event.user_metadata.summary.data
        for event in (await handle.fetch_history()).events
        if event.HasField("timer_started_event_attributes")
    )


def _is_worth_retrying(error: Exception) -> bool:
    return not encode_error(error).non_retryable
