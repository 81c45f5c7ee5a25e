"""The contract's checks, with the vendor's SDK and a loopback server that runs commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from loopback.contract import OF_THE_SDK, LoopbackContract
from vercel_loopback import VercelLoopback


class TestVercel(LoopbackContract):
    """Sandboxes at Vercel."""

    provider_module = "sandbox_vercel"
    abilities = frozenset({"check", "destroy", "exists", "identity"})
    credentials = ("VERCEL_PROJECT_ID", "VERCEL_TEAM_ID", "VERCEL_TOKEN")
    server_class = VercelLoopback
    unreachable: ClassVar[Mapping[str, str] | None] = {"HTTPS_PROXY": "http://127.0.0.1:1"}
    known_failures: ClassVar[Mapping[str, str]] = {
        **OF_THE_SDK,
        "commands.binary_output_is_whole": "the vendor's SDK answers with text",
        "files.any_name_is_taken_as_it_is": "the SDK reads names from the lines of `ls`",
        "files.a_folder_is_no_file": "the loopback's tar puts a file in its place",
    }
