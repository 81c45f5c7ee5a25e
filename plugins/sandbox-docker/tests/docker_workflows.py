"""A workflow that names a Docker image."""

from __future__ import annotations

from agents.sandbox.sandboxes.docker import DockerSandboxClientOptions
from temporalio import workflow

from sandbox_core.workflow import temporal_sandbox_client
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
