"""The contract's checks, with the vendor's SDK and a loopback server that runs commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from e2b_loopback import E2BLoopback
from loopback.contract import OF_THE_SDK
from loopback.operators import OperatorsContract


class TestE2B(OperatorsContract):
    """Sandboxes at E2B."""

    provider_module = "sandbox_e2b"
    abilities = frozenset({"check", "destroy", "exists", "identity", "labels"})
    credentials = ("E2B_API_KEY",)
    server_class = E2BLoopback
    unreachable: ClassVar[Mapping[str, str] | None] = {"E2B_API_URL": "http://127.0.0.1:1"}
    known_failures: ClassVar[Mapping[str, str]] = {
        **OF_THE_SDK,
        "commands.binary_output_is_whole": "the vendor's SDK answers with text",
        "terminals.a_terminal_ends_with_its_process": "the SDK types it into a shell, which stays",
        "files.any_name_is_taken_as_it_is": "the SDK reads names from the lines of `ls`",
    }
