"""The code on each page about sessions is imported exactly as printed, and run."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from agents import ModelProvider
from agents.items import TResponseInputItem
from agents.models.interface import Model
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from agents.testing import ScriptedModel, assistant_message
from documented import documented
from openai.types.responses import ResponseOutputItem
from scripts import Answer, Scripted, Scripts, call, commands_then_report
from support import running_worker, scheduled_activities, unique
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle

from sandbox_core.providers import Provider, client_provider
from sandbox_core.worker import SandboxPlugin

WITHOUT_RUNNER = "docs/sessions/without-a-runner.md"

Handle = WorkflowHandle[Any, Any]


@pytest.fixture
def page(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """The module of the page that the test names."""
    block = documented(*request.param)
    name = block.module
    (tmp_path / f"{name}.py").write_text(block.content, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)  # Other tests may have one of this name.
    module = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, name, module)  # Removed again after the test.
    return module


class Worker:
    """A worker for the workflows of one page."""

    def __init__(self, client: Client, queue: str) -> None:
        self.client, self._queue = client, queue

    async def start(self, workflow: str, *arguments: object) -> Handle:
        return await self.client.start_workflow(
            workflow,
            args=arguments,
            id=unique("page"),
            task_queue=self._queue,
            execution_timeout=timedelta(seconds=60),
        )

    async def run(self, workflow: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever it returns
        return await (await self.start(workflow, *arguments)).result()


@pytest.fixture
async def worker(page: ModuleType, temporal_client: Client) -> AsyncIterator[Worker]:
    workflows = [
        value for value in vars(page).values() if hasattr(value, "__temporal_workflow_definition")
    ]
    async with running_worker(temporal_client, *workflows) as queue:
        yield Worker(temporal_client, queue)


def of(page: str, beginning: str) -> pytest.MarkDecorator:
    """Name the block of a page that a test runs, as `documented` does."""
    return pytest.mark.parametrize("page", [(page, beginning)], indirect=True, ids=[""])


@of("docs/sessions/pass-the-state.md", "from typing")
async def test_another_workflow_finds_the_workspace(worker: Worker) -> None:
    saved = await worker.run("Prepare")

    assert "prepared\n" == await worker.run("Use", saved)


@of("docs/sessions/continue-as-new.md", "from typing")
async def test_each_run_goes_on_in_the_workspace(worker: Worker) -> None:
    assert "3\n2\n1\n" == await worker.run("Rounds", 3)


@of("docs/sessions/share.md", "import asyncio")
async def test_children_work_in_one_workspace(worker: Worker) -> None:
    assert "a\nb\nc\n" == await worker.run("Team", ["a", "b", "c"])


@of("docs/sessions/updates.md", "from sandbox_core")
async def test_updates_are_answered_until_the_signal(worker: Worker) -> None:
    handle = await worker.start("Workbench")
    await handle.execute_update("do", "echo kept > notes.txt")
    said = await handle.execute_update("do", "cat notes.txt")
    await handle.signal("finish")
    await handle.result()

    assert "kept\n" == said


@of("docs/sessions/without-a-runner.md", "import io")
async def test_a_workflow_needs_no_agent(worker: Worker) -> None:
    assert [0, 3] == [
        await worker.run("Check", source) for source in ("print(1)", "raise SystemExit(3)")
    ]


async def test_its_worker_runs(temporal_address: str, tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text(documented(WITHOUT_RUNNER, "import io").content)
    (tmp_path / "worker.py").write_text(documented(WITHOUT_RUNNER, "import asyncio").content)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "worker.py",
        cwd=tmp_path,
        env={**os.environ, "TEMPORAL_ADDRESS": temporal_address, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)

    assert (0, b"0\n") == (process.returncode, said)


@of("docs/sessions/reset.md", "from sandbox_core")
async def test_a_command_after_the_point_runs_again(worker: Worker) -> None:
    handle = await worker.start("Steps")
    point = await _task_before_the_second_command(handle)
    execution = WorkflowExecution(workflow_id=handle.id, run_id=handle.result_run_id or "")
    request = ResetWorkflowExecutionRequest(
        namespace=worker.client.namespace,
        workflow_execution=execution,
        reason="to see",
        request_id=unique("reset"),
        workflow_task_finish_event_id=point,
    )
    await worker.client.workflow_service.reset_workflow_execution(request)
    again = worker.client.get_workflow_handle(handle.id)
    await again.signal("finish")

    assert "one\ntwo\ntwo\n" == await again.result()


async def _task_before_the_second_command(handle: Handle) -> int:
    """Return the workflow task that asked for the second command, once both have run."""
    asked: list[int] = []
    done = 0
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("activity_task_scheduled_event_attributes"):
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name.endswith("_exec"):
                asked.append(scheduled.workflow_task_completed_event_id)
        done += event.HasField("activity_task_completed_event_attributes")
        if done == 4:  # A create, a start, and both commands.
            return asked[1]
    raise AssertionError("the workflow has ended")


def _writes(outputs: Sequence[str]) -> ResponseOutputItem:
    if not outputs:
        return call("exec_command", cmd="echo the report > report.md")
    return call("transfer_to_reviewer")


def _reviews(outputs: Sequence[str]) -> ResponseOutputItem:
    if len(outputs) > 2:  # Of the writer's command, of the handoff, and of this one.
        return assistant_message(f"read {outputs[-1].split('Output:')[-1].strip()}")
    return call("exec_command", cmd="cat report.md")


ANSWERS: dict[str, Answer] = {
    "writer": _writes,
    "reviewer": _reviews,
    "solo": commands_then_report("echo the report > report.md; cat report.md"),
}


@of("docs/sessions/handoffs.md", "from agents")
async def test_agents_that_hand_over_find_the_workspace(
    page: ModuleType, temporal_client: Client
) -> None:
    assert "read the report: the report\n" == await _run_agents(temporal_client, page.Report, "Go.")


@of("docs/migration.md", "from agents")
async def test_the_workflow_after_the_move_runs(page: ModuleType, temporal_client: Client) -> None:
    assert "the report\n" == await _run_agents(temporal_client, page.Write, "Go.")


@of("docs/migration-example.md", "from dataclasses")
async def test_openais_example_after_the_move_forks_and_switches(
    page: ModuleType, temporal_client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each fork has a workspace of its own, and so has the sandbox of the other backend."""
    monkeypatch.setenv("SANDBOX_CORE_STORAGE", str(tmp_path / "storage"))
    both = _with_agents(temporal_client, _Obedience(), [_another("elsewhere")])
    async with running_worker(both, page.Talk, plugins=()) as queue:

        async def begin(start: object) -> Handle:
            return await both.start_workflow(
                page.Talk.run,
                start,
                id=unique("talk"),
                task_queue=queue,
                execution_timeout=timedelta(seconds=60),
            )

        async def ask(handle: Handle, command: str) -> str:
            said = await handle.execute_update("ask", command)
            return str(said).strip().split("Output:\n")[-1].replace("\n", " ")

        first = await begin(page.Conversation(backend="local"))
        assert "one" == await ask(first, "echo one > notes; cat notes")
        fork = await begin(await first.query("fork"))
        assert "one first" == await ask(first, "echo first >> notes; cat notes")
        assert "one fork" == await ask(fork, "echo fork >> notes; cat notes")
        await first.execute_update("switch_backend", "elsewhere")
        assert "one first there" == await ask(first, "echo there >> notes; cat notes")
        assert "one fork" == await ask(fork, "cat notes")
        for handle in (first, fork):
            await handle.signal("close")
            await handle.result()
        performed = scheduled_activities(await first.fetch_history())

    assert 1 == performed.count("local-sandbox_create_session")
    assert 1 == performed.count("elsewhere-sandbox_create_session")


def _another(name: str) -> Provider:
    """Return a second backend: folders of this host, under another name."""
    return client_provider(name, UnixLocalSandboxClient, UnixLocalSandboxClientOptions)


class _Obedient(Scripted):
    """Runs what the user has said last, and says what the command has written."""

    def _next(self, conversation: str | list[TResponseInputItem]) -> ScriptedModel:
        last = dict(conversation[-1]) if isinstance(conversation, list) else {}
        answer = (
            assistant_message(str(last["output"]))
            if "output" in last
            else call("exec_command", cmd=str(last["content"]))
        )
        return ScriptedModel([[answer]])


class _Obedience(ModelProvider):
    def get_model(self, model_name: str | None) -> Model:
        return _Obedient(lambda outputs: assistant_message(""))


def _with_agents(
    client: Client, models: ModelProvider, providers: Sequence[Provider] = ()
) -> Client:
    agents = pytest.importorskip(
        "temporalio.openai_agents",
        reason="temporalio-openai-agents does not take this openai-agents",
    )
    plugin = agents.OpenAIAgentsPlugin(
        model_params=agents.ModelActivityParameters(start_to_close_timeout=timedelta(minutes=1)),
        model_provider=models,
    )
    config = client.config()
    config["plugins"] = [plugin, SandboxPlugin(providers=providers)]
    return Client(**config)


async def _run_agents(client: Client, workflow: Any, task: str) -> Any:  # noqa: ANN401 - what it returns
    both = _with_agents(client, Scripts(ANSWERS))
    async with running_worker(both, workflow, plugins=()) as queue:
        handle = await both.start_workflow(
            workflow.run,
            task,
            id=unique("page"),
            task_queue=queue,
            execution_timeout=timedelta(seconds=60),
        )
        said = await handle.result()
        performed = scheduled_activities(await handle.fetch_history())
    assert 1 == performed.count("local-sandbox_create_session")
    return said
