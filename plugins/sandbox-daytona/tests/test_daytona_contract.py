"""The contract's checks, with the vendor's SDK and a loopback server that runs commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest
from daytona import AsyncDaytona
from daytona_loopback import DaytonaLoopback
from loopback.contract import OF_THE_SDK
from loopback.operators import OperatorsContract

from sandbox_core.testing.contract import Backend


class TestDaytona(OperatorsContract):
    """Sandboxes at a loopback server."""

    provider_module = "sandbox_daytona"
    credentials = ("DAYTONA_API_KEY",)
    extended_levels = frozenset({"durable"})
    own_root = False  # The server rewrites paths in commands, and not in what the helper is asked.
    credential_page = ""  # It is the message of Daytona's SDK.
    known_failures: ClassVar[Mapping[str, str]] = {
        **OF_THE_SDK,
        "commands.binary_output_is_whole": "the vendor's API answers with text",
        "commands.background_processes_outlive_their_call": "the loopback server ends them",
        "terminals.a_terminal_ends_with_its_process": "the SDK types it into a shell, which stays",
        "files.any_name_is_taken_as_it_is": "the SDK's shell quoting breaks a newline in a name",
        "files.folders_are_made": "the vendor's API makes the folders above, asked to or not",
    }

    @pytest.fixture(scope="class")
    @classmethod
    def contract_backend(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
        server = DaytonaLoopback(tmp_path_factory.mktemp("daytona"))

        async def sandboxes() -> set[str]:
            return set(server.sandboxes)

        async def stop(sandbox_id: str) -> None:
            async with AsyncDaytona() as daytona:
                await (await daytona.get(sandbox_id)).stop()

        with pytest.MonkeyPatch.context() as patch, server:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            yield Backend(
                backend_ids=sandboxes,
                stop_sandbox=stop,
                unreachable={"DAYTONA_API_URL": "http://127.0.0.1:1"},
                max_sandboxes=8,
            )
