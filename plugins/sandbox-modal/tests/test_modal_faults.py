"""Faults of Modal's service, as its unmodified SDK passes them on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from agents.extensions.sandbox.modal import ModalSandboxClientOptions, ModalSandboxSessionState
from agents.sandbox import Manifest
from agents.sandbox.errors import ExecTimeoutError
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot
from grpclib import Status
from modal.exception import AlreadyExistsError, ServiceError
from modal_loopback import ModalLoopback
from support import until

from sandbox_core.errors import AtCapacity, InvalidRequest
from sandbox_modal import ModalProvider, sandbox_client_provider
from sandbox_modal.api import RefusedByModal
from sandbox_modal.client import LabellingModalSandboxClient

ALWAYS = 50
"""How often a method fails that goes on failing, whatever Modal's SDK tries again."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModalLoopback]:
    with ModalLoopback(tmp_path) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def provider(server: ModalLoopback) -> ModalProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(provider: ModalProvider) -> LabellingModalSandboxClient:
    return provider.create_client()


class TestCreate:
    """A sandbox is made once, or an error says why not."""

    async def test_a_lost_answer_makes_no_second_sandbox(
        self, server: ModalLoopback, provider: ModalProvider, client: LabellingModalSandboxClient
    ) -> None:
        """Modal's SDK asks again, and the service knows the request."""
        server.answer_with("SandboxCreate", None)
        session = await client.create(options=provider.default_options())

        assert [session.state.sandbox_id] == list(server.machines)  # type: ignore[attr-defined]
        assert 2 == server.requests.count("SandboxCreate")

    async def test_the_accounts_limit_is_waited_for(
        self, server: ModalLoopback, provider: ModalProvider, client: LabellingModalSandboxClient
    ) -> None:
        """By the workflow."""
        server.answer_with("SandboxCreate", Status.RESOURCE_EXHAUSTED, "too many sandboxes")

        with pytest.raises(AtCapacity, match=r"'modal' has no room .* too many sandboxes"):
            await client.create(options=provider.default_options())
        assert {} == server.machines

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (Status.UNAUTHENTICATED, 401),
            (Status.PERMISSION_DENIED, 403),
            (Status.INVALID_ARGUMENT, 400),
        ],
    )
    async def test_a_refusal_is_an_answer(
        self,
        server: ModalLoopback,
        provider: ModalProvider,
        client: LabellingModalSandboxClient,
        status: Status,
        code: int,
    ) -> None:
        """Which is not asked for again."""
        server.answer_with("SandboxCreate", status, "no")

        with pytest.raises(RefusedByModal, match="Modal: no") as error:
            await client.create(options=provider.default_options())
        assert code == error.value.status

    async def test_a_conflict_may_be_over_the_next_time(
        self, server: ModalLoopback, provider: ModalProvider, client: LabellingModalSandboxClient
    ) -> None:
        """Nothing is left of it."""
        server.answer_with("SandboxCreate", Status.ALREADY_EXISTS, "it is there")

        with pytest.raises(AlreadyExistsError):
            await client.create(options=provider.default_options())
        assert {} == server.machines

    async def test_options_and_the_image_reach_modal(
        self,
        server: ModalLoopback,
        provider: ModalProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The image is the worker's affair."""
        monkeypatch.setenv("SANDBOX_MODAL_IMAGE", "im-own")
        options = ModalSandboxClientOptions(app_name="own", timeout=77, image_builder_version=None)
        session = await provider.create_client().create(options=options)
        state = session.state

        assert isinstance(state, ModalSandboxSessionState)
        assert ("own", 77, None) == (state.app_name, state.timeout, state.image_builder_version)
        assert "ImageFromId" in server.requests


class TestLookup:
    """An answer that does not come is not a no."""

    async def test_no_second_sandbox_is_made_where_modal_does_not_answer(
        self, server: ModalLoopback, provider: ModalProvider, client: LabellingModalSandboxClient
    ) -> None:
        """The SDK's client makes one."""
        session = await client.create(options=provider.default_options())
        sandbox_id = provider.identity(session.state)
        server.answer_with("SandboxWait", Status.UNAVAILABLE, "away", times=ALWAYS)

        for asked in (client.resume(session.state), provider.exists(client, sandbox_id)):
            with pytest.raises(ServiceError, match="away"):
                await asked
        assert [sandbox_id] == list(server.machines)

    async def test_a_list_that_does_not_come_is_not_empty(
        self, server: ModalLoopback, provider: ModalProvider, client: LabellingModalSandboxClient
    ) -> None:
        """Otherwise a killed create would be forgotten."""
        server.answer_with("SandboxList", Status.UNAVAILABLE, "away", times=ALWAYS)

        with pytest.raises(ServiceError, match="away"):
            await provider.find(client, {"a": "b"})

    async def test_every_page_of_the_list_is_read(
        self, server: ModalLoopback, provider: ModalProvider, client: LabellingModalSandboxClient
    ) -> None:
        """Whether the last one is full or not."""
        server.page_size = 2
        labelled = provider.labelled(client, {"a": "b"})
        made = {
            provider.identity((await labelled.create(options=provider.default_options())).state)
            for _ in range(3)
        }

        found = await provider.find(client, {"a": "b"})
        assert made == {sandbox.sandbox_id for sandbox in found}

    async def test_expired_credentials_are_said(
        self, provider: ModalProvider, server: ModalLoopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By whatever is asked for."""
        monkeypatch.setenv("MODAL_TOKEN_SECRET", "another")
        stranger = provider.create_client()

        for asked in (provider.check(stranger), provider.exists(stranger, "sb-any")):
            with pytest.raises(RefusedByModal, match="token") as error:
                await asked
            assert 401 == error.value.status


class TestEnd:
    """A sandbox that is not ended is paid for."""

    async def test_a_delete_that_fails_is_an_error(
        self, server: ModalLoopback, provider: ModalProvider, client: LabellingModalSandboxClient
    ) -> None:
        """The SDK's client says nothing; a shutdown forgets which sandbox it was."""
        session = await client.create(options=provider.default_options())
        for end in (session.shutdown, lambda: client.delete(session)):
            server.answer_with("SandboxTerminate", Status.UNAVAILABLE, "away", times=4)
            with pytest.raises(ServiceError, match="away"):
                await end()
        await client.delete(session)

        assert {} == server.machines

    async def test_a_timeout_leaves_the_sandbox(
        self, server: ModalLoopback, provider: ModalProvider, client: LabellingModalSandboxClient
    ) -> None:
        """The SDK's session terminates it, with everything in it."""
        session = await client.create(options=provider.default_options())
        await session.start()
        with pytest.raises(ExecTimeoutError):
            await session.exec("sleep 60", timeout=0.5)

        assert b"here\n" == (await session.exec("echo here")).stdout
        (machine,) = server.machines.values()

        async def ended() -> bool:
            return (await machine.run("pgrep", "-x", "sleep")).exit_code != 0

        await until(ended)


def test_the_state_of_another_backend_is_refused() -> None:
    state = UnixLocalSandboxSessionState(snapshot=NoopSnapshot(id="x"), manifest=Manifest())

    with pytest.raises(InvalidRequest, match="of type 'unix_local' is not Modal's"):
        sandbox_client_provider().identity(state)
