"""Provider `local`: its description, and its directories."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
from agents.sandbox import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import CAPABILITIES
from sandbox_local import LocalProvider, sandbox_client_provider


@pytest.fixture
def provider() -> LocalProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(provider: LocalProvider) -> UnixLocalSandboxClient:
    return provider.create_client()


def test_it_has_every_optional_ability(provider: LocalProvider) -> None:
    """Nothing of a directory is out of reach."""
    assert set(CAPABILITIES) - {"process streams"} == {
        name for name, cls in CAPABILITIES.items() if isinstance(provider, cls)
    }
    assert provider.host_bound


class TestCommands:
    """What a command sees of the worker."""

    async def test_a_command_gets_no_secret_of_the_worker(
        self, client: UnixLocalSandboxClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The worker's environment holds the keys of models and of other backends."""
        monkeypatch.setenv("OPENAI_API_KEY", "s3cr3t-of-the-worker")
        session = await client.create()
        async with session:
            shown = (await session.exec("env")).stdout.decode()
        await client.delete(session)

        assert "s3cr3t" not in shown
        assert f"PATH={os.environ['PATH']}" in shown.splitlines()


class TestDestroy:
    """Deleting a sandbox by its id alone."""

    async def test_deletes_a_directory_that_was_made_for_a_sandbox(
        self, provider: LocalProvider, client: UnixLocalSandboxClient
    ) -> None:
        """With what is in it."""
        session = await client.create()
        async with session:
            await session.exec("mkdir -p deep/down && touch deep/down/file")
        sandbox_id = provider.identity(session.state)
        await provider.destroy(client, sandbox_id)

        assert not await provider.exists(client, sandbox_id)

    async def test_leaves_a_directory_of_the_users_own(
        self, provider: LocalProvider, client: UnixLocalSandboxClient, tmp_path: Path
    ) -> None:
        """A manifest may name a root that was there before the sandbox."""
        session = await client.create(manifest=Manifest(root=str(tmp_path)))
        await provider.destroy(client, provider.identity(session.state))

        assert await asyncio.to_thread(tmp_path.is_dir)

    async def test_that_does_not_succeed_is_an_error(
        self, provider: LocalProvider, client: UnixLocalSandboxClient
    ) -> None:
        """What is left must not be taken for deleted."""
        with (
            tempfile.NamedTemporaryFile(prefix="sandbox-local-") as no_directory,
            pytest.raises(OSError, match="Not a directory"),
        ):
            await provider.destroy(client, no_directory.name)

    async def test_refuses_what_is_no_directory_of_a_sandbox(
        self, provider: LocalProvider, client: UnixLocalSandboxClient
    ) -> None:
        """A relative path would depend on where the worker was started."""
        with pytest.raises(InvalidRequest, match="'sandbox-local-x' is not the directory of"):
            await provider.destroy(client, "sandbox-local-x")


async def test_check_accepts_a_temporary_directory_that_can_be_written(
    provider: LocalProvider, client: UnixLocalSandboxClient
) -> None:
    """It leaves nothing there."""
    await provider.check(client)
