"""The contract's checks, for directories on this host."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest

from sandbox_core.testing.contract import Backend
from sandbox_core.testing.contract.pytest_plugin import ProviderContract


class TestLocal(ProviderContract):
    """Directories of this host."""

    provider_module = "sandbox_local"
    known_failures: ClassVar[Mapping[str, str]] = {
        "workspace.a_workspace_comes_back_as_it_was": "the SDK restores no hard links",
        "workspace.a_special_file_does_not_spoil_the_archive": "the SDK restores no FIFO",
        "workspace.hydrating_keeps_names_of_any_kind": "to the SDK a backslash is a separator",
    }

    @pytest.fixture(scope="class")
    @classmethod
    def contract_backend(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
        folder = tmp_path_factory.mktemp("directories")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TMPDIR", str(folder))
            patch.setattr(tempfile, "tempdir", None)

            async def directories() -> set[str]:
                return {str(path) for path in folder.glob("sandbox-local-*")}

            yield Backend(backend_ids=directories, max_sandboxes=25)
