"""What the contract promises, of containers of a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import ClassVar

import pytest
from docker_engine import IMAGE, DockerEngine

from sandbox_core.testing.contract import Backend
from sandbox_core.testing.contract.pytest_plugin import ProviderContract

pytest_plugins = ["docker_fixtures"]

pytestmark = pytest.mark.xdist_group("docker")


class TestDocker(ProviderContract):
    """Containers."""

    provider_module = "sandbox_docker"
    known_failures: ClassVar[Mapping[str, str]] = {
        "files.any_name_is_taken_as_it_is": "the SDK reads names from the lines of `ls`",
        "files.a_folder_is_no_file": "the SDK moves what is written into a folder of that name",
        "workspace.a_workspace_comes_back_as_it_was": "the SDK restores no hard links",
        "workspace.a_special_file_does_not_spoil_the_archive": "the SDK restores no FIFO",
        "workspace.hydrating_keeps_names_of_any_kind": "to the SDK a backslash is a separator",
    }

    @pytest.fixture(scope="class")
    @classmethod
    def contract_backend(cls, shared_engine: DockerEngine) -> Iterator[Backend]:
        async def containers() -> set[str]:
            listed = await asyncio.to_thread(shared_engine.client.containers.list, all=True)
            return {str(container.id) for container in listed}

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", shared_engine.host)
            patch.setenv("SANDBOX_DOCKER_IMAGE", IMAGE)
            yield Backend(
                backend_ids=containers,
                unreachable={"DOCKER_HOST": "tcp://127.0.0.1:1"},
                max_sandboxes=8,
            )
        shared_engine.remove_containers()
