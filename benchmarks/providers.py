"""What each provider costs beside the Agents SDK's client of the same backend, called directly.

Hosted services are servers on loopback that run commands for real, as in the tests, so that what is
measured is software and no network; docker has an engine of its own. The sides take turns:

- ``SDK``: the Agents SDK's client, without Temporal and without sandbox-core;
- ``client``: the provider's client, likewise called directly;
- ``workflow``: the same operations in a workflow, one activity each, on a tuned dev server.

    python benchmarks/providers.py --providers e2b docker --json figures.json
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import io
import json
import logging
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from rich.console import Console
    from rich.table import Table

    from sandbox_core.providers import discover, load
    from sandbox_core.providers.activation import close_client
    from sandbox_core.testing import DevServer
    from sandbox_core.worker import SandboxPlugin
    from sandbox_core.workflow import temporal_sandbox_client

ROOT = Path(__file__).parents[1]
SDK, CLIENT, WORKFLOW = SIDES = ("SDK", "client", "workflow")
OPERATIONS = ("create", "exec", "write", "read")
CONTENT = b"x" * 1024
Seconds = dict[str, list[float]]


@contextmanager
def backend(name: str, folder: Path) -> Iterator[Mapping[str, str]]:
    """Run the backend that a provider's tests use; yield the environment that leads to it."""
    if name == "local":
        yield {"TMPDIR": str(folder)}
    elif name == "bubblewrap":
        from bubblewrap_fixtures import clean
        from bubblewrap_worker import new_home

        home = new_home()
        yield {"SANDBOX_BUBBLEWRAP_HOME": str(home / "store")}
        clean(home)
    elif name == "docker":
        from docker_engine import IMAGE, DockerEngine

        with DockerEngine() as engine:
            yield {"DOCKER_HOST": engine.host, "SANDBOX_DOCKER_IMAGE": IMAGE}
    else:
        module = importlib.import_module(f"{name}_loopback")
        (kind,) = (
            value
            for key, value in vars(module).items()
            if key.lower() == f"{name}loopback" and value.__module__ == module.__name__
        )
        with kind(folder) as server:
            yield server.environment


def bare(client: object) -> Any:  # noqa: ANN401 - the SDK's clients have no common constructor
    """Return the client of the Agents SDK that a provider's client extends, if there is one."""
    for kind in type(client).__mro__:
        if kind.__module__.startswith(("agents.extensions.", "agents.sandbox.sandboxes.")):
            if kind.__name__ != "DockerSandboxClient":
                return kind()
            return kind(importlib.import_module("docker").from_env())
    return None


async def operate(client: Any, options: Any, count: int, now: Any) -> Seconds:  # noqa: ANN401
    """Create a sandbox, use it `count` times, delete it; return the seconds of each operation."""
    seconds: Seconds = {name: [] for name in OPERATIONS}

    async def timed(name: str, work: Awaitable[Any]) -> Any:  # noqa: ANN401 - what it returns
        begin = now()
        answer = await work
        seconds[name].append(now() - begin)
        return answer

    async def create() -> Any:  # noqa: ANN401 - a session of either side
        made = await client.create(options=options)
        await made.start()
        return made

    session = await timed("create", create())
    try:
        for _ in range(count):
            await timed("exec", session.exec("true"))
            await timed("write", session.write(Path("file"), io.BytesIO(CONTENT)))
            await timed("read", session.read(Path("file")))
    finally:
        await client.delete(session)
    return seconds


@workflow.defn
class Operate:
    """The operations of one sandbox."""

    @workflow.run
    async def run(self, provider: str, count: int) -> Seconds:
        return await operate(temporal_sandbox_client(provider), None, count, workflow.time)


async def measure(name: str, address: str, rounds: int, count: int) -> dict[str, Seconds]:
    """Return the seconds of a provider's operations on each side that it has."""
    (loaded,) = load([each for each in discover() if each.name == name])
    provider: Any = getattr(loaded, "provider", None)
    assert provider is not None, loaded
    clients = {CLIENT: provider.create_client()}
    if (without := bare(clients[CLIENT])) is not None:
        clients[SDK] = without
    options = provider.default_options()
    plain = options.for_sdk() if hasattr(options, "for_sdk") else options  # Blaxel's.
    sides = [side for side in SIDES if side in {*clients, WORKFLOW}]
    found: dict[str, Seconds] = {side: {op: [] for op in OPERATIONS} for side in sides}
    temporal, queue = await Client.connect(address, plugins=[SandboxPlugin()]), f"bench-{name}"
    async with Worker(temporal, task_queue=queue, workflows=[Operate]):
        for turn in range(rounds + 1):
            for side in sides[turn % len(sides) :] + sides[: turn % len(sides)]:
                if side == WORKFLOW:
                    seconds = await temporal.execute_workflow(
                        Operate.run,
                        args=[name, count],
                        id=f"{queue}-{uuid.uuid4().hex}",
                        task_queue=queue,
                        execution_timeout=timedelta(minutes=5),
                    )
                else:
                    seconds = await operate(
                        clients[side], plain if side == SDK else options, count, time.perf_counter
                    )
                for op in OPERATIONS if turn else ():  # The first turn connects, and imports.
                    found[side][op] += seconds[op]
    for client in clients.values():
        await close_client(client)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    everyone = sorted(p.name.removeprefix("sandbox-") for p in (ROOT / "plugins").iterdir())
    parser.add_argument("--providers", nargs="+", choices=everyone, default=everyone)
    parser.add_argument("--rounds", type=int, default=5, help="sandboxes of each side")
    parser.add_argument("--count", type=int, default=10, help="operations of each kind in one")
    parser.add_argument("--json", type=Path, help="where to write the medians, in milliseconds")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # Blaxel's SDK has everyone's shown, also the servers'.
    sys.path += [str(ROOT / "tests"), *map(str, ROOT.glob("plugins/*/tests"))]
    table = Table(*("provider", "operation", *(f"{side}, ms" for side in SIDES)))
    figures = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary, DevServer() as server:
        for name in arguments.providers:
            folder = Path(temporary, name)
            folder.mkdir()
            with ExitStack() as stack:
                own = {"SANDBOX_CORE_PROVIDERS": name, "XDG_STATE_HOME": temporary}
                environment = {**os.environ, **own, **stack.enter_context(backend(name, folder))}
                stack.enter_context(mock.patch.dict(os.environ, environment, clear=True))
                stack.enter_context(mock.patch.object(tempfile, "tempdir", None))
                work = measure(name, server.address, arguments.rounds, arguments.count)
                found = asyncio.run(work)
            figures[name] = {
                op: {side: round(median(each[op]) * 1000, 2) for side, each in found.items()}
                for op in OPERATIONS
            }
            for op, medians in figures[name].items():
                table.add_row(name, op, *(str(medians.get(side, "")) for side in SIDES))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
