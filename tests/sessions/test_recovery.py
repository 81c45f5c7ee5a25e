"""A session continues after its worker's end, and keeps its workspace."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from agents.sandbox.errors import WorkspaceStartError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from faults.harness import line_of, running
from local_backend import LocalClient
from support import completed_activities, running_worker, scheduled_activities, unique
from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError
from workflows.sessions import CollectsGarbage, StepByStep
from workflows.storage import RemovesWorkspace

# A worker that stops drops its workflows, and with them their `async with` blocks, unfinished.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Handle = WorkflowHandle[StepByStep, list[str]]


@asynccontextmanager
async def _on_a_new_worker(client: Client, queue: str) -> AsyncIterator[None]:
    """A worker that holds no session yet; the one before it has stopped."""
    async with running_worker(client, StepByStep, task_queue=queue):
        yield


async def _start(client: Client, queue: str) -> Handle:
    return await client.start_workflow(
        StepByStep.run, "local", id=unique("steps"), task_queue=queue
    )


async def _do(handle: Handle, command: str) -> str:
    return await handle.execute_update(StepByStep.do, command)


async def _workspace(handle: Handle) -> str:
    return await handle.query(StepByStep.workspace)


class TestAnotherWorker:
    """A worker that does not hold the session resumes it when it is first asked for something."""

    async def test_finds_the_workspace_as_the_agent_left_it(self, temporal_client: Client) -> None:
        """Files that the agent has made are there, and its edits of manifest files too."""
        queue = unique("queue")
        async with _on_a_new_worker(temporal_client, queue):
            handle = await _start(temporal_client, queue)
            await _do(handle, "echo edited > hello.txt; echo made > made.txt")
        async with _on_a_new_worker(temporal_client, queue):
            seen = await _do(handle, "cat hello.txt made.txt")
            await handle.signal(StepByStep.finish)
            await handle.result()

        assert "edited\nmade\n" == seen

        performed = scheduled_activities(await handle.fetch_history())
        assert 1 == performed.count("local-sandbox_resume_session")

    async def test_deletes_the_sandbox_without_resuming_it(self, temporal_client: Client) -> None:
        """A worker that holds no session needs none to delete a sandbox."""
        queue = unique("queue")
        async with _on_a_new_worker(temporal_client, queue):
            handle = await _start(temporal_client, queue)
            await _do(handle, "true")
            workspace = await _workspace(handle)
        shutil.rmtree(workspace)
        async with _on_a_new_worker(temporal_client, queue):
            await handle.signal(StepByStep.finish)
            await handle.result()

        performed = scheduled_activities(await handle.fetch_history())
        assert ["local-sandbox_delete_session"] * 2 == performed[-2:]

    # The command fails the workflow, and its update with it.
    @pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")
    async def test_says_that_the_sandbox_is_lost(self, temporal_client: Client) -> None:
        """An empty workspace is never passed off as the agent's."""
        queue = unique("queue")
        async with _on_a_new_worker(temporal_client, queue):
            handle = await _start(temporal_client, queue)
            await _do(handle, "echo made > made.txt")
            workspace = await _workspace(handle)
        shutil.rmtree(workspace)
        async with _on_a_new_worker(temporal_client, queue):
            with pytest.raises(WorkflowUpdateFailedError):
                await _do(handle, "cat made.txt")
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()

        assert isinstance(failed.value.cause, ApplicationError)
        assert (
            f"sandbox {workspace} of provider 'local' no longer exists on host "
            f"{socket.gethostname()}, and its workspace was never saved to a snapshot. Create a "
            f"new session; to keep a workspace beyond its sandbox, save it with session.stop()."
        ) == failed.value.cause.message

    @pytest.mark.filterwarnings("ignore::temporalio.workflow.UnfinishedUpdateHandlersWarning")
    async def test_says_that_a_command_may_run_in_a_sandbox_that_it_cannot_open(
        self, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error of the resume alone would read as if the command had not been started."""
        resume, was_running = LocalClient.resume, list[bool]()

        async def refuses_once(self: LocalClient, state: SandboxSessionState) -> SandboxSession:
            if was_running:
                return await resume(self, state)
            was_running.append(running(pid))
            raise WorkspaceStartError(path=Path("/"), message="paused", retryable=False)

        queue = unique("queue")
        async with _on_a_new_worker(temporal_client, queue):
            handle = await _start(temporal_client, queue)
            await _do(handle, "true")
            workspace = Path(await _workspace(handle))
            doing = asyncio.create_task(_do(handle, "echo $$ > pid; sleep 60"))
            pid = int(await line_of(workspace / "pid"))
        # The local backend refuses nothing by itself; a paused container does.
        monkeypatch.setattr(LocalClient, "resume", refuses_once)
        async with _on_a_new_worker(temporal_client, queue):
            with pytest.raises(WorkflowUpdateFailedError):
                await doing
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()

        assert [True] == was_running
        assert isinstance(failed.value.cause, ApplicationError)
        assert "OutcomeUnknown" == failed.value.cause.type
        assert "'echo $$ > pid; sleep 60' may or may not have run" in failed.value.cause.message
        assert "cannot be opened again: paused" in failed.value.cause.message


class TestUnfinished:
    """A worker that stops drops its workflows; Python ends them in any thread, at any time."""

    async def test_its_cleanup_is_not_another_workflows(self, temporal_client: Client) -> None:
        """It would schedule activities there, which no replay repeats."""
        queue = unique("queue")
        async with _on_a_new_worker(temporal_client, queue):
            handle = await _start(temporal_client, queue)
            await _do(handle, "true")
        async with running_worker(temporal_client, CollectsGarbage) as others:
            other = await temporal_client.start_workflow(
                CollectsGarbage.run, id=unique("collects"), task_queue=others
            )
            await other.result()

        assert [] == scheduled_activities(await other.fetch_history())

        async with _on_a_new_worker(temporal_client, queue):
            await handle.signal(StepByStep.finish)
            await handle.result()


class TestRemovedFromInside:
    async def test_what_was_done_in_a_workspace_is_not_lost_with_it(
        self, temporal_client: Client
    ) -> None:
        """There is nothing left to save when the session is closed."""
        async with running_worker(temporal_client, RemovesWorkspace) as queue:
            handle = await temporal_client.start_workflow(
                RemovesWorkspace.run, id=unique("removes"), task_queue=queue
            )
            seen = await handle.result()

        assert "done\n" == seen
        history = await handle.fetch_history()
        assert "local-sandbox_delete_session" in completed_activities(history)


class TestStartedTwice:
    """The SDK starts a session again whenever it does not look like running."""

    @pytest.mark.parametrize("change_worker", [False, True], ids=["same worker", "new worker"])
    async def test_keeps_what_the_agent_has_edited(
        self, temporal_client: Client, change_worker: bool
    ) -> None:
        """The manifest is not applied to a workspace that is in use."""
        queue = unique("queue")
        async with _on_a_new_worker(temporal_client, queue):
            handle = await _start(temporal_client, queue)
            await _do(handle, "echo edited > hello.txt")
            if not change_worker:
                await _do(handle, "restart")
                seen = await _do(handle, "cat hello.txt")
                await handle.signal(StepByStep.finish)
                await handle.result()
        if change_worker:
            async with _on_a_new_worker(temporal_client, queue):
                await _do(handle, "restart")
                seen = await _do(handle, "cat hello.txt")
                await handle.signal(StepByStep.finish)
                await handle.result()

        assert "edited\n" == seen
