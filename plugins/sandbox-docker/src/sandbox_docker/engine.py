"""Calls docker-py's blocking client in threads, so that the worker's event loop never waits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import MappingProxyType
from typing import Any, Final, TypeVar

from docker import DockerClient
from docker.errors import DockerException
from docker.models.containers import Container, ContainerCollection

_ResultT = TypeVar("_ResultT")

# The SDK's pool has 8 threads for all sessions of a process, and each running command occupies one.
# By default, a worker performs 100 activities at a time.
_THREADS: Final = ThreadPoolExecutor(max_workers=256, thread_name_prefix="sandbox-docker")


class EngineUnreachable(Exception):
    """The Docker engine does not answer, or refuses."""


async def in_thread(function: Callable[..., _ResultT], *arguments: object) -> _ResultT:
    """Call a blocking function in a thread reserved for the engine."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_THREADS, copy_context().run, function, *arguments)


async def in_other_loop(coroutine: Coroutine[Any, Any, _ResultT]) -> _ResultT:
    """Await a blocking coroutine of the SDK's in a separate thread and event loop."""
    return await in_thread(asyncio.run, coroutine)


class _Containers(ContainerCollection):  # type: ignore[misc]  # a class without types
    def create(self, image: str, command: object = None, **settings: object) -> Container:
        # The SDK makes `tail` process 1, which reaps no orphans: they would remain as zombies. It
        # also ignores SIGTERM. The engine's own init avoids both.
        return super().create(image, command, **{"init": True, **settings, **self.client.arguments})


class _Engine(DockerClient):  # type: ignore[misc]  # a class without types
    arguments: Mapping[str, object] = MappingProxyType({})
    """Arguments for every container, in addition to the SDK's."""

    @property
    def containers(self) -> _Containers:
        return _Containers(client=self)


def connect(address: str) -> DockerClient:
    """Return docker-py's client of the engine at `address`, with the environment's TLS settings.

    Contexts of the `docker` command are ignored: the ids in histories belong to one engine.

    Raises:
        EngineUnreachable: The engine does not answer, or refuses.
    """
    try:
        return _Engine.from_env(environment={**os.environ, "DOCKER_HOST": address})
    except DockerException as error:
        raise EngineUnreachable(
            f"no Docker engine can be used at {address} (DOCKER_HOST): {error}"
        ) from error
