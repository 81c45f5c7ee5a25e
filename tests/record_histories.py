"""Records the histories that `test_replay.py` replays: ``python tests/record_histories.py``.

A history holds the host's name, as a part of its worker's queue. This gives it one for all to see::

    unshare --uts sh -c 'hostname recorder && python tests/record_histories.py'

``resumed-on-another-worker`` is not made any more: it is of the time before a worker could take a
session over from one that is gone.

Record again only when a changed history is meant, and say why in the changelog: a workflow that was
started before the change will not survive it.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

from parity.cases import write_skills
from support import archive, running_worker
from temporalio.client import Client, WorkflowHandle
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from workflows.sessions import CaughtErrors, EveryOperation, StepByStep

from sandbox_core.cli.demo import project_files
from sandbox_core.demo.script import ScriptedRepair
from sandbox_core.demo.workflow import RepairRequest, RepairWorkflow
from sandbox_core.reap_workflow import REAP_WORKFLOW, ReapProviders
from sandbox_core.testing import DevServer
from sandbox_core.wire.reap_messages import ReapRequest
from sandbox_core.worker import SandboxPlugin

HISTORIES = Path(__file__).parent / "histories"


def agents_plugin() -> OpenAIAgentsPlugin:
    """Return the plugin for the demo's scripted model."""
    return OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(start_to_close_timeout=timedelta(minutes=1)),
        model_provider=ScriptedRepair(),
    )


async def _record(client: Client) -> dict[str, WorkflowHandle[object, object]]:
    """Run each scenario to its end; the key is the name of its history."""
    queue = "recorded"
    plain = (EveryOperation, CaughtErrors, StepByStep)
    handles: dict[str, WorkflowHandle[object, object]] = {}
    async with running_worker(client, *plain, task_queue=queue):
        handles["every-operation"] = await client.start_workflow(
            "EveryOperation",
            args=["local", archive("inner.txt", b"inside")],
            id="every-operation",
            task_queue=queue,
        )
        handles["caught-errors"] = await client.start_workflow(
            "CaughtErrors", "local", id="caught-errors", task_queue=queue
        )
        handles["taken-over"] = steps = await client.start_workflow(
            "StepByStep", "local", id="taken-over", task_queue=queue
        )
        await steps.execute_update("do", "echo edited > hello.txt")
        for name in ("every-operation", "caught-errors"):
            await handles[name].result()
    async with running_worker(client, *plain, task_queue=queue):
        await steps.execute_update("do", "cat hello.txt")
        await steps.signal("finish")
        await steps.result()
        asked = ReapProviders(providers=("local",), reap=ReapRequest(older_than_s=0))
        handles["reap"] = await client.start_workflow(
            REAP_WORKFLOW, asked.dump(), id="reap", task_queue=queue
        )
        await handles["reap"].result()
    with tempfile.TemporaryDirectory() as folder:
        skills = write_skills(Path(folder))
        plugins = [SandboxPlugin(local_sources=[skills])]
        async with running_worker(client, *plain, task_queue=queue, plugins=plugins):
            handles["every-operation-and-skills"] = await client.start_workflow(
                "EveryOperation",
                args=["local", archive("inner.txt", b"inside"), str(skills)],
                id="every-operation-and-skills",
                task_queue=queue,
            )
            await handles["every-operation-and-skills"].result()
    config = client.config()
    config["plugins"] = [agents_plugin(), SandboxPlugin()]
    async with running_worker(Client(**config), RepairWorkflow, plugins=(), task_queue=queue):
        handles["demo"] = await client.start_workflow(
            "RepairWorkflow",
            RepairRequest(provider="local", files=project_files()),
            id="demo",
            task_queue=queue,
        )
        await handles["demo"].result()
    return handles


async def _main(names: list[str]) -> None:
    with DevServer() as server:
        # The identity is a part of the history; the default is this process and this host.
        client = await Client.connect(server.address, identity="recorder")
        for name, handle in (await _record(client)).items():
            if not names or name in names:
                history = await handle.fetch_history()
                # Of a stack trace the replay takes no notice, and it names files of this machine.
                text = re.sub(
                    r'"stackTrace": "(?:[^"\\]|\\.)*"', '"stackTrace": ""', history.to_json()
                )
                (HISTORIES / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
