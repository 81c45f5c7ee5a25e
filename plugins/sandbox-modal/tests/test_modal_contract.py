"""The contract's checks, with the vendor's SDK and a loopback server that runs commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from loopback.operators import OperatorsContract
from modal_loopback import ModalLoopback


class TestModal(OperatorsContract):
    """Sandboxes at Modal."""

    provider_module = "sandbox_modal"
    credentials = ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET")
    server_class = ModalLoopback
    address = "MODAL_SERVER_URL"
    known_failures: ClassVar[Mapping[str, str]] = {
        "terminals.terminating_ends_all_processes": "Modal's SDK cannot end a command",
    }
