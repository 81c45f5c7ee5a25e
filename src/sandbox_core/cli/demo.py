"""`sandbox demo`: runs the repair workflow and shows what happens."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from rich.console import Console
from rich.rule import Rule
from rich.text import Text
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

import sandbox_core.demo
from sandbox_core.codec import load_state
from sandbox_core.demo.workflow import RepairRequest, RepairResult, RepairWorkflow
from sandbox_core.errors import UnknownProvider
from sandbox_core.naming import activity_name
from sandbox_core.operations import CREATE_SESSION, DELETE_SESSION
from sandbox_core.providers import (
    FailedProvider,
    LoadedProvider,
    SupportsExists,
    SupportsIdentity,
    discover,
    load,
)
from sandbox_core.providers.registry import REQUIRED_VARIABLE, Provider
from sandbox_core.testing import DevServer
from sandbox_core.worker import SandboxPlugin

_TASK_QUEUE = "sandbox-demo"
_GIVEN_UP_WITHIN_S = 10.0


async def run_demo(*, provider: str, keep: bool) -> int:
    """Run the demo and return 0 if the tests pass at the end and no sandbox is left, else 1.

    Raises:
        ProviderError: The provider is not installed, or cannot be loaded.
        FileNotFoundError: What the demo needs is not installed.
    """
    console = Console(soft_wrap=True)
    chosen = _load(provider)
    os.environ[REQUIRED_VARIABLE] = provider  # The worker has no use for the others.
    # What an activity fails with is shown as the workflow's failure, or as the agent's tool output.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)
    with DevServer(ui_port=0) as server:
        passed = await _repair(console, server, chosen)
        if keep:
            await _until_interrupted(console, server)
    return 0 if passed else 1


def _load(name: str) -> Provider:
    results = {
        r.name if isinstance(r, FailedProvider) else r.provider.name: r for r in load(discover())
    }
    result = results.get(name)
    if isinstance(result, LoadedProvider):
        return result.provider
    if isinstance(result, FailedProvider):
        raise result.error
    raise UnknownProvider(
        f"provider {name!r} is not installed here. Installed: {', '.join(results) or 'none'}. "
        f"Install it: pip install sandbox-{name}"
    )


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
    async with Worker(client, task_queue=_TASK_QUEUE, workflows=[RepairWorkflow]):
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
            await _give_up(handle)
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
    """Print each activity as it ends; return how many of each type have completed."""
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
            started[scheduled_id] = _seconds(event)
        elif (end := _activity_end(event)) is not None:
            mark, scheduled_id = end
            name, summary = scheduled[scheduled_id]
            if mark == "✓":
                completed[name] = completed.get(name, 0) + 1
            took = (_seconds(event) - started.get(scheduled_id, _seconds(event))) * 1000
            _, _, detail = summary.partition(": ")
            console.print(
                f"{mark} {name:<34} {took:>7.0f} ms  {detail}", highlight=False, markup=False
            )
    return completed


async def _give_up(handle: WorkflowHandle[RepairWorkflow, RepairResult]) -> None:
    """Cancel the workflow, and let it delete its sandbox before the server is gone."""
    await handle.cancel()
    with suppress(WorkflowFailureError, asyncio.TimeoutError):
        await asyncio.wait_for(handle.result(), _GIVEN_UP_WITHIN_S)


def _activity_end(event: HistoryEvent) -> tuple[str, int] | None:
    if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
        return "✓", event.activity_task_completed_event_attributes.scheduled_event_id
    if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
        return "✗", event.activity_task_failed_event_attributes.scheduled_event_id
    if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
        return "⧗", event.activity_task_timed_out_event_attributes.scheduled_event_id
    return None


def _seconds(event: HistoryEvent) -> float:
    return event.event_time.seconds + event.event_time.nanos / 1e9


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
    created = activities.get(activity_name(provider.name, CREATE_SESSION.name), 0)
    deleted = activities.get(activity_name(provider.name, DELETE_SESSION.name), 0)
    left = created - deleted
    if result is not None:
        left = max(left, int(await _exists(provider, load_state(result.session_state))))
    remaining = _word(not left, "none", str(left))
    console.print(
        f"Tests in the sandbox: {_word(passed, 'pass', 'fail')}\n"
        f"Sandboxes: {created} created, {deleted} deleted, {remaining} left"
    )
    return passed and not left


async def _exists(provider: Provider, state: SandboxSessionState) -> bool:
    """Ask the backend itself whether the sandbox is still there, where it can be asked."""
    if not (isinstance(provider, SupportsIdentity) and isinstance(provider, SupportsExists)):
        return False
    return await provider.exists(provider.create_client(), provider.identity(state))


def _word(good: bool, yes: str, no: str) -> str:
    return f"[green]{yes}[/]" if good else f"[red]{no}[/]"


async def _until_interrupted(console: Console, server: DevServer) -> None:
    stopped = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    console.print(f"\nThe server stays up at {server.address}; Ctrl-C stops it.", highlight=False)
    await stopped.wait()
