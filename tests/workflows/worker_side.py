"""Workflows whose manifests name what only the worker has."""

from __future__ import annotations

from pathlib import Path

from agents.sandbox import Manifest
from agents.sandbox.entries import LocalDir, LocalFile, S3Mount
from agents.sandbox.entries.mounts import InContainerMountStrategy
from agents.sandbox.entries.mounts.patterns import RcloneMountPattern
from agents.sandbox.manifest import Environment
from temporalio import workflow
from workflows.sessions import new_session

from sandbox_core.workflow import WorkerEnv


@workflow.defn
class UsesSecret:
    """Has a command use, and write, a variable of the worker's environment."""

    @workflow.run
    async def run(self, variable: str) -> list[str]:
        environment = Environment(value={"TOKEN": WorkerEnv(name=variable)})
        async with new_session("local", Manifest(environment=environment)) as session:
            length = await session.exec('printf %s "$TOKEN" | wc -c')
            shown = await session.exec("echo out $TOKEN; echo err $TOKEN >&2; exit 3")
            process = await session.pty_exec_start("echo pty $TOKEN", yield_time_s=5)
        return [
            length.stdout.decode().strip(),
            shown.stdout.decode(),
            shown.stderr.decode(),
            process.output.decode(),
        ]


@workflow.defn
class CopiesFromWorker:
    """Copies a folder and a file of the worker's disk into the workspace."""

    @workflow.run
    async def run(self, folder: str, file: str) -> str:
        manifest = Manifest(
            entries={"folder": LocalDir(src=Path(folder)), "file.txt": LocalFile(src=Path(file))}
        )
        async with new_session("local", manifest) as session:
            return (await session.exec("cat folder/* file.txt")).stdout.decode()


@workflow.defn
class MountsBucket:
    """Names the credentials of a bucket in its manifest."""

    @workflow.run
    async def run(self) -> None:
        mount = S3Mount(
            bucket="bucket",
            access_key_id="AKIAOFTHETEST",
            secret_access_key="secret-of-the-test",
            mount_strategy=InContainerMountStrategy(pattern=RcloneMountPattern()),
        )
        async with new_session("local", Manifest(entries={"data": mount})):
            pass
