"""The provider kit for a provider of a hosted service, with a loopback server in its place."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from agents.sandbox import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot

from loopback.outage import outage
from loopback.server import LoopbackServer
from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import CAPABILITIES
from sandbox_core.testing.contract import Backend, Check, Level, Subject
from sandbox_core.testing.contract.pytest_plugin import ProviderContract

OF_THE_SDK: Mapping[str, str] = {
    "workspace.a_workspace_comes_back_as_it_was": "the SDK restores no hard links",
    "workspace.a_special_file_does_not_spoil_the_archive": "the SDK restores no FIFO",
    "workspace.hydrating_keeps_names_of_any_kind": "to the SDK a backslash is a separator",
}
"""What no client of the Agents SDK does by itself; workers do: see `saved`."""


class LoopbackContract(ProviderContract):
    """What the contract promises, of the vendor's unmodified SDK and its server on loopback."""

    abilities: ClassVar[frozenset[str]] = frozenset(CAPABILITIES) - {
        "host processes",
        "process streams",
    }
    credentials: ClassVar[Sequence[str]]
    """The variables without which no client is made."""

    credential_page: ClassVar[str] = "https://"
    """What the error of a missing one has in it besides its name."""

    server_class: ClassVar[type[LoopbackServer]]
    unreachable: ClassVar[Mapping[str, str] | None] = None
    """The variables with which the vendor's SDK asks a port where nobody answers.

    None if it reads them once in a process.
    """

    address: ClassVar[str | None] = None
    """The variable with the server's address, if the vendor's SDK asks a closed port for long.

    It is told of an outage then.
    """

    extended_levels: ClassVar[frozenset[Level]] = frozenset({"session", "durable"})
    """What `make extended` runs: the checks are the same for every service, and take a minute each.

    `make test` runs them for other providers, and of one service what needs no workers.
    """

    @classmethod
    def contract_marks(cls, check: Check) -> Sequence[pytest.MarkDecorator]:
        return (pytest.mark.extended,) if check.level in cls.extended_levels else ()

    @pytest.fixture(scope="class")
    @classmethod
    def contract_backend(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
        server = cls.server_class(tmp_path_factory.mktemp("machines"))

        async def sandboxes() -> set[str]:
            return set(server.machines)

        with pytest.MonkeyPatch.context() as patch, server, outage() as away:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            unreachable = cls.unreachable if cls.address is None else {cls.address: away}
            yield Backend(backend_ids=sandboxes, unreachable=unreachable, max_sandboxes=8)

    def test_it_has_the_abilities_that_its_readme_says(self, contract_subject: Subject) -> None:
        """And no others; the sandbox does not live on the worker's host."""
        has = {name for name in CAPABILITIES if contract_subject.can(name)}

        assert self.abilities == has
        assert not contract_subject.provider.host_bound

    def test_a_missing_credential_is_named(
        self, contract_subject: Subject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With the page where it is had."""
        for name in self.credentials:
            with monkeypatch.context() as without:
                without.delenv(name)
                with pytest.raises(Exception, match=rf"\b{name}\b") as raised:
                    contract_subject.new_client()

            assert self.credential_page in str(raised.value)

    @pytest.mark.extended
    def test_the_demo_runs(
        self,
        contract_subject: Subject,
        contract_backend: Backend,
        contract_loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`sandbox-core demo --provider NAME`, with the credentials in the environment."""
        assert contract_backend.backend_ids is not None
        name = contract_subject.provider.name
        before = contract_loop.run_until_complete(contract_backend.backend_ids())
        command = [str(Path(sys.executable).parent / "sandbox-core"), "demo", "--provider", name]
        environment = {**os.environ, "SANDBOX_CORE_PROVIDERS": name, "OPENAI_API_KEY": ""}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        left = contract_loop.run_until_complete(contract_backend.backend_ids())

        assert 0 == ran.returncode, ran.stdout + ran.stderr
        shown = rf"✓ {name}-sandbox_(pty_exec_start|exec) +\d+ ms  python3 -m unittest"
        assert re.search(shown, ran.stdout), ran.stdout
        assert "Tests in the sandbox: pass" in ran.stdout
        assert "Sandboxes: 1 created, 1 deleted, none left" in ran.stdout
        assert before == left

    def test_the_state_of_another_backend_is_refused(self, contract_subject: Subject) -> None:
        """It has no id here."""
        state = UnixLocalSandboxSessionState(snapshot=NoopSnapshot(id="x"), manifest=Manifest())

        with pytest.raises(InvalidRequest, match="a session state of type 'unix_local' is not"):
            contract_subject.identity(state)
