"""A worker and a workflow that use acme-sandbox-echo.

    ACME_ECHO_HOME=/var/tmp python visit.py 127.0.0.1:7233 visits

It says "ready" on its standard output, and stops when its standard input ends.
"""

from __future__ import annotations

import asyncio
import io
import sys
from dataclasses import dataclass
from pathlib import Path

from acme_sandbox_echo import EchoSandboxClientOptions
from agents.sandbox import LocalSnapshotSpec, Manifest
from agents.sandbox.entries import File
from agents.sandbox.errors import WorkspaceReadNotFoundError
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

from sandbox_core.worker import SandboxPlugin
from sandbox_core.workflow import temporal_sandbox_client


@dataclass
class Visit:
    """What a workflow has seen of its sandboxes."""

    directory: str
    from_manifest: str
    stderr: str
    exit_code: int
    read_back: str
    missing: str
    restored: str
    id_by_default: str


@workflow.defn
class VisitWorkflow:
    """Uses one sandbox, gives it up, and goes on in another one with the first one's files."""

    @workflow.run
    async def run(self, snapshots: str) -> Visit:
        client = temporal_sandbox_client("acme-echo")
        session = await client.create(
            options=EchoSandboxClientOptions(prefix="visit"),
            manifest=Manifest(entries={"greeting.txt": File(content=b"hello\n")}),
            snapshot=LocalSnapshotSpec(base_path=Path(snapshots)),
        )
        missing = ""
        try:
            async with session:
                directory = await session.exec("pwd")
                printed = await session.exec("cat greeting.txt; echo oh >&2; exit 3")
                await session.write(Path("notes/today.txt"), io.BytesIO(b"it rains"))
                read_back = await session.read(Path("notes/today.txt"))
                try:
                    await session.read(Path("notes/tomorrow.txt"))
                except WorkspaceReadNotFoundError as error:
                    missing = str(error.context["path"])
        finally:
            await client.delete(session)

        resumed = await client.resume(session.state)
        try:
            async with resumed:
                restored = await resumed.exec("cat notes/today.txt")
        finally:
            await client.delete(resumed)

        unused = await client.create()
        await client.delete(unused)
        return Visit(
            directory=directory.stdout.decode(),
            from_manifest=printed.stdout.decode(),
            stderr=printed.stderr.decode(),
            exit_code=printed.exit_code,
            read_back=read_back.read().decode(),
            missing=missing,
            restored=restored.stdout.decode(),
            id_by_default=Path(unused.state.manifest.root).name,
        )


async def main(address: str, task_queue: str) -> None:
    """Run the worker until standard input ends."""
    client = await Client.connect(address)
    async with Worker(
        client, task_queue=task_queue, workflows=[VisitWorkflow], plugins=[SandboxPlugin()]
    ):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
