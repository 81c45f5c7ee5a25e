"""A folder of sandboxes and a worker, for the commands that find sandboxes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli.command import run_sandbox
from support import running_worker, unique
from temporalio.client import Client, WorkflowHandle
from workflows.owners import OwnsSandbox
from workflows.visited import Visited

from sandbox_core.providers import discover

STUBBORN = """
from sandbox_core.providers import hookimpl
from importlib.metadata import entry_points

(local,) = entry_points(group="sandbox_core.providers", name="local")


class StubbornProvider(type(local.load().sandbox_client_provider())):
    name = "stubborn"

    async def destroy(self, client, sandbox_id):
        raise PermissionError(f"{sandbox_id}: not allowed")


@hookimpl
def sandbox_client_provider():
    return StubbornProvider()
"""
SILENT = """
import asyncio
from sandbox_core.providers import hookimpl
from importlib.metadata import entry_points

(local,) = entry_points(group="sandbox_core.providers", name="local")


class SilentProvider(type(local.load().sandbox_client_provider())):
    name = "silent"

    async def find(self, client, labels):
        await asyncio.Event().wait()


@hookimpl
def sandbox_client_provider():
    return SilentProvider()
"""
UNABLE = """
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from sandbox_core.providers import SandboxClientProvider, hookimpl


class UnableProvider(SandboxClientProvider[UnixLocalSandboxClientOptions]):
    name = "unable"
    summary = "Has no labels"
    api_version = 1
    options_type = UnixLocalSandboxClientOptions

    def create_client(self):
        return UnixLocalSandboxClient()


@hookimpl
def sandbox_client_provider():
    return UnableProvider()
"""


def install(packages: Path, name: str, source: str) -> None:
    """Install a provider in a folder, for commands that have it in their ``PYTHONPATH``."""
    metadata = packages / f"acme_{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Name: acme-{name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[sandbox_core.providers]\n{name} = acme_{name}\n")
    (packages / f"acme_{name}.py").write_text(source)


@dataclass
class Site:
    """A folder of sandboxes, two more providers that are installed there, and a worker."""

    client: Client
    queue: str
    tmp: Path
    packages: Path

    def install(self, name: str, source: str) -> None:
        """Install a provider for the commands that are run here."""
        install(self.packages, name, source)

    async def reap(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return await self.run("reap", *arguments, **variables)

    async def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run_sandbox, *arguments, **{**self.variables, **variables})

    @property
    def variables(self) -> dict[str, str]:
        """The environment of commands that are run here."""
        return {
            "TEMPORAL_ADDRESS": self.client.service_client.config.target_host,
            "TMPDIR": str(self.tmp),
            # The backends of the others are elsewhere, or are not there.
            "SANDBOX_CORE_DISABLED_PROVIDERS": ",".join(
                {each.name for each in discover()} - {"local"}
            ),
            "PYTHONPATH": str(self.packages),
        }

    async def owned(self) -> tuple[WorkflowHandle[OwnsSandbox, str], Path]:
        """Start a workflow, and return it when it has a sandbox, with the sandbox's directory."""
        handle = await self.client.start_workflow(
            OwnsSandbox.run, args=["local"], id=unique("owner"), task_queue=self.queue
        )
        state = await handle.execute_update(OwnsSandbox.sandbox_state)
        return handle, Path(state["manifest"]["root"])

    async def visited(self) -> tuple[WorkflowHandle[Visited, None], Path]:
        """Start a workflow, and return it when its sandbox is started, with its workspace."""
        handle = await self.client.start_workflow(
            Visited.run, "local", id=unique("visited"), task_queue=self.queue
        )
        return handle, Path(await handle.execute_update(Visited.sandbox_root))

    async def orphan(self) -> tuple[str, Path]:
        """Return the id of a terminated workflow, and the directory that it has left."""
        handle, root = await self.owned()
        await handle.terminate()
        return handle.id, root


@pytest.fixture
async def site(
    temporal_client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    # Sandboxes of other tests, whose workflows may also be closed, are elsewhere.
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp))
    monkeypatch.setenv("SANDBOX_CORE_DISABLED_PROVIDERS", "daytona,docker")
    async with running_worker(temporal_client, OwnsSandbox, Visited) as queue:
        yield Site(temporal_client, queue, tmp, tmp_path / "packages")


def words(text: str) -> str:
    """Return a text without the layout of a terminal, and without typer's frame."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())
