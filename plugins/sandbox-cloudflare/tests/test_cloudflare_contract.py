"""The contract's checks, with the vendor's SDK and a loopback server that runs commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from cloudflare_loopback import CloudflareLoopback
from loopback.contract import OF_THE_SDK, LoopbackContract

_TYPED = "the SDK types it into a shell, which stays"


class TestCloudflare(LoopbackContract):
    """Sandboxes at Cloudflare."""

    provider_module = "sandbox_cloudflare"
    abilities = frozenset({"check", "destroy", "exists", "identity"})
    credentials = ("CLOUDFLARE_SANDBOX_API_KEY", "CLOUDFLARE_SANDBOX_WORKER_URL")
    server_class = CloudflareLoopback
    unreachable: ClassVar[Mapping[str, str] | None] = {
        "CLOUDFLARE_SANDBOX_WORKER_URL": "http://127.0.0.1:1"
    }
    known_failures: ClassVar[Mapping[str, str]] = {
        **OF_THE_SDK,
        "terminals.output_is_delivered_once": _TYPED,
        "terminals.a_short_process_ends_with_its_first_output": _TYPED,
        "terminals.a_terminal_ends_with_its_process": _TYPED,
        "files.any_name_is_taken_as_it_is": "the SDK reads names from the lines of `ls`",
    }
