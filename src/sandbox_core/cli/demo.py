"""`sandbox-core demo`: runs the repair workflow and shows what happens."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.text import Text
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

import sandbox_core.demo
from sandbox_core.cli.watching import (
    activity_end,
    choose_provider,
    give_up,
    sandboxes_left,
    seconds,
    until_interrupted,
    word,
)
from sandbox_core.demo.workflow import RepairRequest, RepairResult, RepairWorkflow
from sandbox_core.providers.discovery import REQUIRED_VARIABLE
from sandbox_core.providers.registry import Provider
from sandbox_core.testing import DevServer
from sandbox_core.wire.agents_models import load_state
from sandbox_core.worker import SandboxPlugin

_TASK_QUEUE = "sandbox-demo"


async def run_demo(*, provider: str | None, keep: bool) -> int:
    """Run the demo and return 0 if the tests pass at the end and no sandbox is left, else 1.

    Raises:
        ProviderError: The provider is not installed, or cannot be loaded.
        FileNotFoundError: A program that the demo needs is not installed.
    """
    console = Console(soft_wrap=True)
    chosen, told = await choose_provider(provider)
    console.print(told, highlight=False)
    os.environ[REQUIRED_VARIABLE] = chosen.name  # The worker needs no other provider.
    # An activity's error is shown as the workflow's failure or the agent's tool output.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)
    with DevServer(ui_port=0) as server:
        passed = await _repair(console, server, chosen)
        if keep:
            await until_interrupted(console, server)
    return 0 if passed else 1


async def _repair(console: Console, server: DevServer, provider: Provider) -> bool:
    try:
        from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
    except ImportError as error:
        raise FileNotFoundError(
            "the demo's agent needs temporalio-openai-agents: pip install 'sandbox-core[demo]'"
        ) from error
    from sandbox_core.demo.script import ScriptedRepair

    real_model = bool(os.environ.get("OPENAI_API_KEY"))
    console.print(
        "Model: OpenAI, with the key in OPENAI_API_KEY."
        if real_model
        else "Model: a script, as OPENAI_API_KEY is not set. Its commands and patches are real.",
        highlight=False,
    )
    agents = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(
            start_to_close_timeout=timedelta(minutes=2),
            retry_policy=RetryPolicy(maximum_attempts=3),
        ),
        model_provider=None if real_model else ScriptedRepair(),
    )
    client = await Client.connect(server.address, plugins=[agents, SandboxPlugin()])
    async with Worker(client, task_queue=_TASK_QUEUE, workflows=[RepairWorkflow]) as worker:
        handle = await client.start_workflow(
            RepairWorkflow.run,
            RepairRequest(provider=provider.name, files=project_files()),
            id=f"sandbox-demo-{uuid.uuid4().hex[:8]}",
            task_queue=_TASK_QUEUE,
        )
        url = server.workflow_url(handle.id, handle.first_execution_run_id or "")
        console.print(f"Workflow {handle.id}: {url}\n", highlight=False)
        try:
            activities = await _follow(console, handle)
        except asyncio.CancelledError:
            # A worker that fails also cancels this task, and then cannot end the workflow.
            if worker.is_running:
                await give_up(handle)
            raise
        result = None
        try:
            result = await handle.result()
            _show(console, result)
        except WorkflowFailureError as error:
            console.print(f"\nThe workflow failed: {error.cause}", style="red", highlight=False)
        await _show_history(console, handle)
        return await _verdict(console, provider, result, activities)


def project_files() -> dict[str, str]:
    """Return the project that the agent repairs: file contents by path."""
    root = Path(sandbox_core.demo.__path__[0]) / "project"
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


async def _follow(
    console: Console, handle: WorkflowHandle[RepairWorkflow, RepairResult]
) -> Mapping[str, int]:
    """Print each activity as it ends; return the number of completed ones of each type."""
    scheduled: dict[int, tuple[str, str]] = {}
    started: dict[int, float] = {}
    completed: dict[str, int] = {}
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            attributes = event.activity_task_scheduled_event_attributes
            scheduled[event.event_id] = (
                attributes.activity_type.name,
                event.user_metadata.summary.data.decode("utf-8").strip('"'),
            )
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            scheduled_id = event.activity_task_started_event_attributes.scheduled_event_id
            started[scheduled_id] = seconds(event)
        elif (end := activity_end(event)) is not None:
            mark, scheduled_id = end
            name, summary = scheduled[scheduled_id]
            if mark == "✓":
                completed[name] = completed.get(name, 0) + 1
            took = (seconds(event) - started.get(scheduled_id, seconds(event))) * 1000
            _, _, detail = summary.partition(": ")
            console.print(
                f"{mark} {name:<34} {took:>7.0f} ms  {detail}", highlight=False, markup=False
            )
    return completed


def _show(console: Console, result: RepairResult) -> None:
    colours = {"+": "green", "-": "red", "@": "cyan"}
    diff = Text.assemble(
        *((line, colours.get(line[0], "")) for line in result.diff.splitlines(keepends=True))
    )
    for title, text in (
        ("Tests before", Text(result.before)),
        ("Diff", diff),
        ("Tests after", Text(result.after)),
        ("Report", Text(result.report)),
    ):
        text.rstrip()
        console.print(Rule(title, align="left"))
        console.print(text or "(none)")


async def _show_history(
    console: Console, handle: WorkflowHandle[RepairWorkflow, RepairResult]
) -> None:
    info = (await handle.describe()).raw_description.workflow_execution_info
    console.print(Rule("Verdict", align="left"))
    console.print(
        f"History: {info.history_length} events, {info.history_size_bytes:,} bytes",
        highlight=False,
    )


async def _verdict(
    console: Console,
    provider: Provider,
    result: RepairResult | None,
    activities: Mapping[str, int],
) -> bool:
    passed = result is not None and result.exit_code == 0
    console.print(f"Tests in the sandbox: {word(passed, 'pass', 'fail')}")
    state = None if result is None else load_state(result.session_state)
    return passed and not await sandboxes_left(console, provider, activities, state)
