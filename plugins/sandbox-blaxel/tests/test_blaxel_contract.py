"""The contract's checks, with the vendor's SDK and a loopback server that runs commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from blaxel_loopback import BlaxelLoopback
from loopback.contract import OF_THE_SDK, LoopbackContract

_TYPED = "the SDK types it into a shell, which stays"


class TestBlaxel(LoopbackContract):
    """Sandboxes at Blaxel."""

    provider_module = "sandbox_blaxel"
    credentials = ("BL_API_KEY", "BL_WORKSPACE")
    server_class = BlaxelLoopback
    known_failures: ClassVar[Mapping[str, str]] = {
        **OF_THE_SDK,
        "commands.binary_output_is_whole": "the vendor's API answers with text",
        "terminals.output_is_delivered_once": _TYPED,
        "terminals.a_short_process_ends_with_its_first_output": _TYPED,
        "terminals.a_terminal_ends_with_its_process": _TYPED,
        "files.any_name_is_taken_as_it_is": "the vendor's SDK puts names into URLs as they are",
        "files.a_folder_is_no_file": "the vendor's API answers with the list of the folder",
        "files.folders_are_made": "the vendor's API makes the folders above, asked to or not",
    }
