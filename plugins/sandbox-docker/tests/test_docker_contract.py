"""The contract's checks, for containers of a real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from docker_engine import IMAGE, DockerEngine

from sandbox_core.testing.contract import Backend, Check
from sandbox_core.testing.contract.pytest_plugin import ProviderContract

pytest_plugins = ["docker_fixtures"]


class TestDocker(ProviderContract):
    """Containers."""

    provider_module = "sandbox_docker"

    @classmethod
    def contract_marks(cls, check: Check) -> Sequence[pytest.MarkDecorator]:
        # `local` shows what workers do: it is the same for every provider.
        return (pytest.mark.extended,) if check.level == "durable" else ()

    @pytest.fixture(scope="class")
    @classmethod
    def contract_backend(cls, shared_engine: DockerEngine) -> Iterator[Backend]:
        async def containers() -> set[str]:
            listed = await asyncio.to_thread(shared_engine.client.containers.list, all=True)
            return {str(container.id) for container in listed}

        async def stop(container_id: str) -> None:
            container = await asyncio.to_thread(shared_engine.client.containers.get, container_id)
            await asyncio.to_thread(container.stop, timeout=0)

        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", shared_engine.host)
            patch.setenv("SANDBOX_DOCKER_IMAGE", IMAGE)
            yield Backend(
                backend_ids=containers,
                stop_sandbox=stop,
                unreachable={"DOCKER_HOST": "tcp://127.0.0.1:1"},
                max_sandboxes=8,
            )
        shared_engine.remove_containers()
