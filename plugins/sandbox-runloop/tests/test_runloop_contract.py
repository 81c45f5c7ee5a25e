"""The contract's checks, with the vendor's SDK and a loopback server that runs commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from loopback.contract import LoopbackContract
from runloop_loopback import RunloopLoopback


class TestRunloop(LoopbackContract):
    """Sandboxes at Runloop."""

    provider_module = "sandbox_runloop"
    credentials = ("RUNLOOP_API_KEY",)
    server_class = RunloopLoopback
    address = "RUNLOOP_BASE_URL"
    known_failures: ClassVar[Mapping[str, str]] = {
        "commands.binary_output_is_whole": "the vendor's API answers with text",
        "files.any_name_is_taken_as_it_is": "the SDK reads names from the lines of `ls`",
    }
