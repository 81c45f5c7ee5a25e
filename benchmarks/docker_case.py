"""Measures commands in containers: through a workflow, and called directly with the SDK's session.

A case of `bench.py`, which needs root and `dockerd`; it starts its own engine.
"""

from __future__ import annotations

import sys
import time
import uuid
from pathlib import Path
from statistics import median

from peer_worker import WorkerProcess
from peer_workflows import OURS, Commands, Report, Task
from rows import Row, make_row, times_the_floor
from temporalio.client import Client

sys.path.append(str(Path(__file__).parents[1] / "plugins/sandbox-docker/tests"))


async def docker(client: Client, address: str, folder: Path, count: int) -> list[Row]:
    """Run `count` commands each way; no rows where no engine can be started."""
    import docker_engine
    from agents.sandbox.sandboxes.docker import DockerSandboxClient, DockerSandboxClientOptions

    if not docker_engine.available():
        print(f"docker: {docker_engine.UNAVAILABLE}")
        return []
    direct: list[float] = []
    with docker_engine.DockerEngine() as engine:
        backend = DockerSandboxClient(engine.client)
        session = await backend.create(
            options=DockerSandboxClientOptions(image=docker_engine.IMAGE)
        )
        await session.start()
        worker = WorkerProcess(
            OURS,
            address,
            folder,
            environment={
                "DOCKER_HOST": engine.host,
                "SANDBOX_DOCKER_IMAGE": docker_engine.IMAGE,
                "SANDBOX_CORE_PROVIDERS": "docker",
            },
        )
        await worker.start()
        try:
            for warm in (True, False):
                report: Report = await client.execute_workflow(
                    Commands.run,
                    Task(
                        side=OURS,
                        provider="docker",
                        image=docker_engine.IMAGE,
                        commands=3 if warm else count,
                        noops=True,
                    ),
                    id=f"docker-{uuid.uuid4().hex[:12]}",
                    task_queue=worker.task_queue,
                )
            for _ in range(count):
                begin = time.perf_counter()
                await session.exec("true")
                direct.append(time.perf_counter() - begin)
        finally:
            await worker.stop()
            await backend.delete(session)
    floor = median(report.noops) + median(direct)
    return [
        make_row(
            "docker, exec true",
            "p50, ms",
            {OURS: median(report.steps) * 1000},
            floor * 1000,
            target=times_the_floor(1),
        )
    ]
