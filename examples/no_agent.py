"""Tests, builds and runs a project in a sandbox: a workflow without an agent or a model.

The steps of a CI job, each a command that a crash of the worker does not repeat.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["sandbox-core", "sandbox-local"]
# [tool.uv.sources]
# sandbox-core = { path = "..", editable = true }
# sandbox-local = { path = "../plugins/sandbox-local", editable = true }
# ///

import asyncio
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from agents.sandbox import Manifest
from agents.sandbox.entries import File
from temporalio import workflow
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.worker import Worker

from sandbox_core.worker import SandboxPlugin
from sandbox_core.workflow import temporal_sandbox_client

PROJECT = {
    "greet/__main__.py": "from hello import hello\n\nprint(hello('world'))\n",
    "greet/hello.py": "def hello(name: str) -> str:\n    return f'Hello, {name}!'\n",
    "test_hello.py": """\
import unittest

from greet.hello import hello


class TestHello(unittest.TestCase):
    def test_it_names_who_is_greeted(self):
        self.assertEqual("Hello, you!", hello("you"))
""",
}
STEPS = [
    "python3 -m unittest --verbose",
    "python3 -m zipapp greet --output greet.pyz",
    "python3 greet.pyz",
]
ARTIFACT = "greet.pyz"


@dataclass
class Job:
    """What to do: the project's files, the command of each step, and the file they make."""

    provider: str
    files: dict[str, str]
    steps: list[str]
    artifact: str


@dataclass
class Report:
    """The output of each step up to the first that failed, and the artifact if none did."""

    outputs: list[str]
    artifact: bytes | None


@workflow.defn
class Build:
    """Does a job in a sandbox of its own."""

    @workflow.run
    async def run(self, job: Job) -> Report:
        manifest = Manifest(entries={p: File(content=c.encode()) for p, c in job.files.items()})
        client = temporal_sandbox_client(job.provider)
        session = await client.create(manifest=manifest)
        outputs: list[str] = []
        try:
            await session.start()
            for command in job.steps:
                step = await session.exec(command, timeout=600)
                outputs.append((step.stdout + step.stderr).decode(errors="replace"))
                if step.exit_code:
                    return Report(outputs, artifact=None)
            return Report(outputs, (await session.read(Path(job.artifact))).read())
        finally:
            await client.delete(session)


async def main(provider: str) -> None:
    """Run a worker, have it do the job, and print the report."""
    settings = ClientConfig.load_client_connect_config()
    settings.setdefault("target_host", "localhost:7233")
    client = await Client.connect(**settings, plugins=[SandboxPlugin()])
    async with Worker(client, task_queue="no-agent", workflows=[Build]):
        job = Job(provider, PROJECT, STEPS, ARTIFACT)
        report = await client.execute_workflow(
            Build.run, job, id=f"no-agent-{uuid.uuid4().hex[:8]}", task_queue="no-agent"
        )
    for command, output in zip(STEPS, report.outputs, strict=False):
        print(f"$ {command}\n{output}")
    if report.artifact is None:
        sys.exit("The last step failed.")
    print(f"{ARTIFACT}: {len(report.artifact)} bytes")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else "local"))
