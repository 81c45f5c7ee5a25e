"""The Temporal UI tells the story of a run: which agent did what in its sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser import take_picture, text_of
from record_histories import agents_plugin
from support import running_worker
from temporalio.client import Client

from sandbox_core.cli.demo import project_files
from sandbox_core.demo.workflow import RepairRequest, RepairWorkflow
from sandbox_core.testing import DevServer
from sandbox_core.worker import SandboxPlugin

PICTURES = os.environ.get("SANDBOX_PICTURES")
"""Where `make pictures` keeps them, for the documentation."""


@pytest.mark.extended
async def test_the_timeline_shows_each_command(tmp_path: Path) -> None:
    with DevServer(ui_port=0) as server:
        plugins = [agents_plugin(), SandboxPlugin()]
        client = await Client.connect(server.address, plugins=plugins)
        async with running_worker(client, RepairWorkflow, plugins=()) as queue:
            handle = await client.start_workflow(
                RepairWorkflow.run,
                RepairRequest(provider="local", files=project_files()),
                id="repair-42",
                task_queue=queue,
            )
            await handle.result()
        history = server.workflow_url(handle.id, handle.first_execution_run_id or "")
        assert history is not None
        timeline = history.removesuffix("history") + "timeline"

        shown = await text_of(timeline)
        await take_picture(timeline, Path(PICTURES or tmp_path, "timeline.png"))

    texts = [
        "create_session • create_session: 5 manifest entries",
        "pty_exec_start • pty_exec_start: python3 -m unittest -v",
        "apply_patch • apply_patch: cart/pricing.py",
        "exec • exec: python3 -m unittest -v",
        "delete_session • delete_session",
    ]
    assert not {f"local-sandbox_{text}" for text in texts} - set(shown), shown
