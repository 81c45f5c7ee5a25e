"""Workflows whose manifests refer to variables and files that only the worker has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.sandbox import Manifest
from agents.sandbox.entries import Dir, LocalDir, LocalFile, S3Mount
from agents.sandbox.entries.mounts import InContainerMountStrategy
from agents.sandbox.entries.mounts.patterns import MountpointMountPattern, RcloneMountPattern
from agents.sandbox.errors import SandboxError
from agents.sandbox.manifest import Environment
from agents.sandbox.sandboxes.docker import DockerSandboxClientOptions
from temporalio import workflow
from workflows.sessions import lazy_skills, new_session

from sandbox_core.workflow import WorkerEnv, temporal_sandbox_client, worker_env_reference


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
class MisspellsSecret:
    """Makes a `WorkerEnv` with a field that it does not have."""

    @workflow.run
    async def run(self, field: str) -> None:
        fields: dict[str, Any] = {field: "ACME_TOKEN"}
        WorkerEnv(**fields)


@workflow.defn
class PassesSecret:
    """Has a secret in its code, and puts it into the options of a sandbox."""

    @workflow.run
    async def run(self) -> None:
        options = DockerSandboxClientOptions(
            "image", labels={"team": "a", "DEPLOY_TOKEN": "s3cr3t-0f-th3-w0rk3r"}
        )
        await temporal_sandbox_client("docker").create(options=options)


@workflow.defn
class SavesSecret:
    """Has a command write a variable of the worker's environment into a file."""

    @workflow.run
    async def run(self, variable: str) -> list[str]:
        environment = Environment(value={"TOKEN": WorkerEnv(name=variable)})
        async with new_session("local", Manifest(environment=environment)) as session:
            await session.exec('printf %s "$TOKEN" > token.txt')
            read = (await session.read(Path("token.txt"))).read()
            saved = (await session.persist_workspace()).read()
        return [read.decode(), saved.hex()]


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
class LoadsSkill:
    """Loads a skill twice; the first time a directory is where one of its files goes."""

    @workflow.run
    async def run(self, folder: str) -> list[str]:
        skills = lazy_skills(folder)
        async with new_session("local") as session:
            skills.bind(session)
            listed = await skills.instructions(session.state.manifest)
            assert listed is not None
            await session.mkdir(".agents/greeting/words.txt", parents=True)
            try:
                first = (await skills.load_skill("greeting"))["status"]
            except SandboxError as error:
                first = error.error_code
            await session.rm(".agents/greeting/words.txt", recursive=True)
            second = (await skills.load_skill("greeting"))["status"]
            words = await session.exec("cat .agents/greeting/words.txt")
        return [first, second, words.stdout.decode()]


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


def _with_bucket(bucket: str, endpoint: str, pattern: str) -> Manifest:
    patterns = {"rclone": RcloneMountPattern, "mountpoint": MountpointMountPattern}
    mount = S3Mount(
        bucket=bucket,
        endpoint_url=endpoint,
        s3_provider="Other",
        access_key_id=worker_env_reference("BUCKET_KEY_ID"),
        secret_access_key=worker_env_reference("BUCKET_KEY"),
        mount_strategy=InContainerMountStrategy(pattern=patterns[pattern]()),
    )
    manifest = Manifest(entries={"in": Dir(children={"data": mount})})
    return manifest.with_in_container_mount_credential_exposure_acknowledged("in/data")


@workflow.defn
class ReadsBucket:
    """Reads a file of a bucket that is mounted with credentials of the worker's environment."""

    @workflow.run
    async def run(
        self, bucket: str, endpoint: str, pattern: str, resumes: int = 0
    ) -> dict[str, Any]:
        client = temporal_sandbox_client("local")
        session = await client.create(manifest=_with_bucket(bucket, endpoint, pattern))
        try:
            for _ in range(resumes):
                session = await client.resume(session.state)
            async with session:
                file = await session.exec("cat in/data/a.txt")
                config = "cat .sandbox-rclone-config/*/*.conf"
                shown = await session.exec(config)
                key = await session.exec(f"{config} | sed -n 's/^secret_access_key = //p' | wc -c")
            folder = session.state.manifest.entries["in"]
            assert isinstance(folder, Dir)
            mounted = folder.children["data"]
            assert isinstance(mounted, S3Mount)
            return {
                "file": file.stdout.decode(),
                "config": shown.stdout.decode().splitlines(),
                "length of the key": int(key.stdout) - 1,
                "credentials": [mounted.access_key_id, mounted.secret_access_key],
            }
        finally:
            await client.delete(session)


@workflow.defn
class ReadsBucketAgain:
    """Reads a file of a bucket when it starts, and once more when it is told to."""

    def __init__(self) -> None:
        self._read: list[str] = []
        self._told = False

    @workflow.run
    async def run(self, bucket: str, endpoint: str, first: str) -> list[str]:
        async with new_session("local", _with_bucket(bucket, endpoint, "rclone")) as session:
            for command in (f"echo made > made.txt; {first}", "true"):
                done = await session.exec(f"cat in/data/a.txt; {command}")
                self._read.append(done.stdout.decode())
                await workflow.wait_condition(lambda: self._told)
            saved = (await session.persist_workspace()).read()
            self._read += [name for name in ("made.txt", ".conf") if name.encode() in saved]
        return self._read

    @workflow.update
    async def read(self) -> None:
        """Return when the file has been read."""
        await workflow.wait_condition(lambda: bool(self._read))

    @workflow.signal
    def again(self) -> None:
        """Read it again."""
        self._told = True
