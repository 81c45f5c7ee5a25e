"""Provider `e2b`: the vendor's SDK against the loopback server."""

from __future__ import annotations

import pytest
from agents.extensions.sandbox.e2b import E2BSandboxClientOptions, E2BSandboxSessionState
from e2b_loopback import E2BLoopback
from loopback.http_faults import (
    HttpFaults,
)

from sandbox_e2b import E2BProvider
from sandbox_e2b.client import StrictE2BSandboxClient

pytest_plugins = ["e2b_fixtures"]


class TestLifecycle:
    """At E2B."""

    async def test_a_sandbox_that_is_to_be_paused_is_not_killed(
        self, server: E2BLoopback, client: StrictE2BSandboxClient
    ) -> None:
        """It is opened again with its files."""
        options = E2BSandboxClientOptions(sandbox_type="e2b", pause_on_exit=True)
        session = await client.create(options=options)
        await session.start()
        await session.exec("echo kept > file")
        await session.shutdown()
        await client.delete(session)
        paused = [sandbox.state for sandbox in server.sandboxes.values()]
        resumed = await client.resume(session.state)

        assert ["paused"] == paused
        assert b"kept\n" == (await resumed.exec("cat file")).stdout


class TestLabels:
    """Metadata, which the user may have set, too."""

    async def test_they_are_beside_the_users_and_not_in_the_state(
        self, server: E2BLoopback, provider: E2BProvider, client: StrictE2BSandboxClient
    ) -> None:
        """Also on the sandbox that a resume makes in the place of another."""
        options = E2BSandboxClientOptions(sandbox_type="e2b", metadata={"team": "a"})
        labelled = provider.labelled(client, {"owner": "b"})
        session = await labelled.create(options=options)
        state = session.state
        assert isinstance(state, E2BSandboxSessionState)
        await client.delete(session)
        await labelled.resume(state)

        ((made, sandbox),) = server.sandboxes.items()
        assert {"team": "a", "owner": "b"} == sandbox.metadata
        assert {"team": "a"} == state.metadata
        assert [made] == [each.sandbox_id for each in await provider.find(client, {"owner": "b"})]

    async def test_every_page_of_the_list_is_read(
        self, server: E2BLoopback, provider: E2BProvider, client: StrictE2BSandboxClient
    ) -> None:
        """The last one counts, whether it is full or not."""
        server.page_size = 2
        labelled = provider.labelled(client, {"owner": "b"})
        made = {
            provider.identity((await labelled.create(options=provider.default_options())).state)
            for _ in range(3)
        }

        assert made == {each.sandbox_id for each in await provider.find(client, {"owner": "b"})}


class TestFault(HttpFaults):
    """Of E2B's API."""

    create = "POST /sandboxes"
    lookup = "(GET|POST) /sandboxes/.+"
    delete = "DELETE /sandboxes/.+"
    execute = "POST /process.Process/Start"
    listing = "GET /v2/sandboxes"
    at_capacity = (
        429,
        {"code": 429, "message": "you have reached the maximum number of concurrent E2B sandboxes"},
    )

    async def test_a_sandbox_that_does_not_connect_is_not_replaced(
        self, server: E2BLoopback, provider: E2BProvider, client: StrictE2BSandboxClient
    ) -> None:
        """The SDK's client makes another, and says nothing."""
        session = await client.create(options=provider.default_options())
        server.fail("POST /sandboxes/.+/connect", 503)
        with pytest.raises(ConnectionError, match="did not connect"):
            await client.resume(session.state.model_copy())

        assert [provider.identity(session.state)] == list(server.machines)
