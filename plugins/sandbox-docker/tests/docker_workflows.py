"""A workflow that names a Docker image."""

from __future__ import annotations

from agents.sandbox.sandboxes.docker import DockerSandboxClientOptions
from temporalio import workflow

from sandbox_core.workflow import LiveOutput, temporal_sandbox_client
from sandbox_docker import DockerSandboxClientOptions as RestrictedOptions


@workflow.defn
class RunInImage:
    """Runs one command in a container of the given image, and returns its output."""

    @workflow.run
    async def run(self, image: str, command: str) -> str:
        client = temporal_sandbox_client("docker")
        session = await client.create(
            options=DockerSandboxClientOptions(image=image, labels={"made-by": "RunInImage"})
        )
        try:
            async with session:
                return (await session.exec(command)).stdout.decode()
        finally:
            await client.delete(session)


@workflow.defn
class RunRestricted:
    """Runs one command in a container with the given options, and returns its output."""

    @workflow.run
    async def run(self, options: str, command: str) -> str:
        client = temporal_sandbox_client("docker")
        parsed = RestrictedOptions.model_validate_json(options)
        session = await client.create(options=parsed)
        try:
            async with session:
                return (await session.exec(command)).stdout.decode()
        finally:
            await client.delete(session)


@workflow.defn
class RunLocally:
    """Runs commands as local activities, and returns their output."""

    @workflow.run
    async def run(self, commands: list[str]) -> list[str]:
        client = temporal_sandbox_client("docker", local_activities=True)
        session = await client.create()
        try:
            async with session:
                return [(await session.exec(each)).stdout.decode() for each in commands]
        finally:
            await client.delete(session)


@workflow.defn
class PublishesProcess:
    """Starts a process whose output is published, and polls it only when it is told to."""

    def __init__(self) -> None:
        self._told = False

    @workflow.signal
    def poll(self) -> None:
        self._told = True

    @workflow.run
    async def run(self, command: str) -> None:
        client = temporal_sandbox_client("docker", live_output=LiveOutput())
        session = await client.create()
        try:
            async with session:
                started = await session.pty_exec_start(command, yield_time_s=0.25)
                await workflow.wait_condition(lambda: self._told)
                while started.process_id is not None:
                    started = await session.pty_write_stdin(
                        session_id=started.process_id, chars="", yield_time_s=0.5
                    )
        finally:
            await client.delete(session)
