"""A workspace is never silently empty or outdated."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from faults.harness import workers
from faults.keeping import Handle, do, end, keep
from local_backend import LocalProvider
from support import attempts, running_worker, scheduled_activities, unique
from temporalio.client import Client, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from workflows.fleet import KeepSession, Kept

from sandbox_core.worker import SandboxPlugin

# A worker that stops drops its workflows, and with them what they wait for, unfinished.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SESSIONS = 8
EDIT = "echo edited > hello.txt"


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CORE_STORAGE", str(tmp_path / "storage"))
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")


async def failure(handle: Handle, command: str) -> ApplicationError:
    """Return what a command fails with."""
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await do(handle, command)
    assert isinstance(failed.value.cause, ApplicationError)
    return failed.value.cause


class TestEdit:
    """The agent has edited a file that the manifest has put there; eight sessions at once."""

    async def test_survives_every_second_start_at_two_workers(self, temporal_address: str) -> None:
        """Without eager dispatch an operation lands on any of them."""
        queue = unique("queue")

        async def edit_and_start(client: Client) -> list[str]:
            handle = await keep(client, queue)
            seen = []
            for number in range(3):
                await do(handle, f"echo {number} > hello.txt")
                await handle.execute_update(KeepSession.start)
                seen.append(await do(handle, "cat hello.txt"))
            await end(handle)
            return seen

        async with AsyncExitStack() as stack:
            for _ in range(2):
                client = await Client.connect(temporal_address)
                await stack.enter_async_context(
                    running_worker(client, KeepSession, task_queue=queue, eager=False)
                )
            seen = await asyncio.gather(*(edit_and_start(client) for _ in range(SESSIONS)))

        assert [["0\n", "1\n", "2\n"]] * SESSIONS == seen

    async def test_survives_kill_9_and_replacement(
        self, temporal_address: str, temporal_client: Client
    ) -> None:
        """Also where it is newer than the snapshot: nothing was lost, so nothing is restored."""
        with workers(temporal_address, unique("queue"), KeepSession) as fleet:
            first = await fleet.start()
            handles = [await keep(temporal_client, fleet.queue) for _ in range(SESSIONS)]

            async def edit(handle: Handle) -> None:
                await do(handle, "echo saved > hello.txt")
                await handle.execute_update(KeepSession.save)
                await do(handle, EDIT)

            async def look(handle: Handle) -> list[str]:
                await handle.execute_update(KeepSession.start)
                seen = await do(handle, "cat hello.txt")
                await handle.execute_update(KeepSession.save)
                await handle.execute_update(KeepSession.start)
                return [seen, await do(handle, "cat hello.txt")]

            await asyncio.gather(*map(edit, handles))
            first.kill()
            await fleet.start()
            seen = await asyncio.gather(*map(look, handles))
            restored = await asyncio.gather(
                *(handle.execute_update(KeepSession.restorations) for handle in handles)
            )
            await asyncio.gather(*map(end, handles))

        assert [["edited\n", "edited\n"]] * SESSIONS == seen
        assert [[]] * SESSIONS == restored

    @pytest.mark.parametrize("saved", [True, False], ids=["saved", "not saved"])
    @pytest.mark.parametrize("change_worker", [True, False], ids=["new worker", "same worker"])
    async def test_survives_a_later_session_on_the_same_state(
        self, temporal_client: Client, saved: bool, change_worker: bool
    ) -> None:
        """A run that goes on with the session state of another, as `RunState` carries it."""
        queue = unique("queue")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(
                running_worker(temporal_client, KeepSession, task_queue=queue)
            )
            handle = await keep(temporal_client, queue)
            await do(handle, EDIT)
            if saved:
                await handle.execute_update(KeepSession.save)
            if change_worker:
                await stack.aclose()
                await stack.enter_async_context(
                    running_worker(temporal_client, KeepSession, task_queue=queue)
                )
            await handle.execute_update(KeepSession.resume)
            seen = await do(handle, "cat hello.txt")
            await end(handle)

        assert "edited\n" == seen

    async def test_survives_a_start_after_shutdown_without_the_object_of_its_snapshot(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """Nothing can be restored, and nothing has to be: the workspace is still there."""
        async with running_worker(temporal_client, KeepSession) as queue:
            handle = await keep(temporal_client, queue)
            await do(handle, EDIT)
            await handle.execute_update(KeepSession.save)
            await handle.execute_update(KeepSession.shut_down)
            (saved,) = (tmp_path / "storage" / "snapshots").iterdir()
            saved.unlink()
            await handle.execute_update(KeepSession.start)
            seen = await do(handle, "cat hello.txt")
            await end(handle)

        assert "edited\n" == seen


class FlakyProvider(LocalProvider):
    """The local one, whose lookups fail a few times before they answer."""

    name = "flaky"

    def __init__(self, failures: int) -> None:
        self.failures = failures

    async def exists(self, client: UnixLocalSandboxClient, sandbox_id: str) -> bool:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionError("the backend does not answer")
        return await super().exists(client, sandbox_id)


class TestFlakyLookup:
    """A worker that does not hold the session asks for its sandbox, and gets no answer."""

    @asynccontextmanager
    async def _second_worker(self, client: Client, failures: int) -> AsyncIterator[Handle]:
        queue = unique("queue")
        first = [SandboxPlugin(providers=[FlakyProvider(0)])]
        async with running_worker(client, KeepSession, plugins=first, task_queue=queue):
            handle = await keep(client, queue, Kept(provider="flaky"))
            await do(handle, EDIT)
        second = [SandboxPlugin(providers=[FlakyProvider(failures)])]
        async with running_worker(client, KeepSession, plugins=second, task_queue=queue):
            yield handle
            await end(handle)

    async def test_is_retried_and_no_sandbox_is_made(self, temporal_client: Client) -> None:
        """The SDK's clients take "no answer" for "not there"."""
        async with self._second_worker(temporal_client, failures=3) as handle:
            root = await handle.query(KeepSession.root)
            seen = await do(handle, "pwd; cat hello.txt")
            restored = await handle.execute_update(KeepSession.restorations)

        assert f"{root}\nedited\n" == seen
        assert [] == restored
        history = await handle.fetch_history()
        assert 1 == scheduled_activities(history).count("flaky-sandbox_resume_session")
        assert 4 == max(attempts(history))

    async def test_that_never_answers_is_an_error_and_the_session_can_go_on(
        self, temporal_client: Client
    ) -> None:
        """As many attempts as the retry policy has, and then what the backend said."""
        async with self._second_worker(temporal_client, failures=4) as handle:
            root = await handle.query(KeepSession.root)
            error = await failure(handle, "cat hello.txt")
            seen = await do(handle, "pwd; cat hello.txt")

        assert "the backend does not answer" == error.message
        assert f"{root}\nedited\n" == seen


@pytest.mark.parametrize("held", [True, False], ids=["held", "not held"])
class TestLost:
    """Somebody deletes the sandbox, while a worker holds the session and while none does."""

    @asynccontextmanager
    async def _without_its_sandbox(
        self, client: Client, held: bool, *, saved: bool
    ) -> AsyncIterator[tuple[Handle, str]]:
        queue = unique("queue")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running_worker(client, KeepSession, task_queue=queue))
            handle = await keep(client, queue)
            await do(handle, EDIT)
            if saved:
                await handle.execute_update(KeepSession.save)
            await do(handle, "echo later >> hello.txt")
            root = await handle.query(KeepSession.root)
            if not held:
                await stack.aclose()
                await stack.enter_async_context(
                    running_worker(client, KeepSession, task_queue=queue)
                )
            shutil.rmtree(root)
            yield handle, root
            await end(handle)

    async def test_it_is_restored_from_its_snapshot_and_the_workflow_can_tell(
        self, temporal_client: Client, held: bool
    ) -> None:
        """With what was saved, and not with the manifest."""
        async with self._without_its_sandbox(temporal_client, held, saved=True) as (handle, root):
            seen = await handle.execute_update(KeepSession.read, "hello.txt")
            restored = await handle.execute_update(KeepSession.restorations)
            again = await do(handle, "cat hello.txt")
            now = await handle.query(KeepSession.root)

        assert ["edited\n"] * 2 == [seen, again]
        assert [[root, now]] == restored

    async def test_without_a_snapshot_the_error_names_provider_sandbox_and_host(
        self, temporal_client: Client, held: bool
    ) -> None:
        """Once and for all: no later operation brings back an empty workspace."""
        async with self._without_its_sandbox(temporal_client, held, saved=False) as (handle, root):
            errors = [await failure(handle, "cat hello.txt") for _ in range(2)]
            there = await asyncio.to_thread(Path(root).exists)

        assert ["SandboxLost"] * 2 == [error.type for error in errors]
        for error in errors:
            assert error.message.startswith(f"sandbox {root} of provider 'local' ")
            assert f" on host {socket.gethostname()}" in error.message
        assert "its workspace was never saved to a snapshot" in errors[-1].message
        assert not there

    async def test_without_the_object_of_its_snapshot_the_error_says_that_it_is_missing(
        self, temporal_client: Client, held: bool, tmp_path: Path
    ) -> None:
        """It was saved, so it may come back with the object."""
        async with self._without_its_sandbox(temporal_client, held, saved=True) as (handle, root):
            (saved,) = (tmp_path / "storage" / "snapshots").iterdir()
            renamed = saved.rename(saved.with_name("renamed"))
            errors = [await failure(handle, "cat hello.txt") for _ in range(2)]
            renamed.rename(saved)
            seen = await do(handle, "cat hello.txt")

        assert ["SandboxLost"] * 2 == [error.type for error in errors]
        message = errors[-1].message
        assert message.startswith(f"sandbox {root} of provider 'local' no longer exists")
        assert "never saved" not in message
        url = (tmp_path / "storage").as_uri()
        assert f"storage {url}: snapshot {saved.name} is missing" in message
        assert "edited\n" == seen

    @pytest.mark.parametrize("operation", ["write", "start", "save"])
    async def test_it_is_not_made_anew_by_what_makes_folders(
        self, temporal_client: Client, held: bool, operation: str
    ) -> None:
        """An empty workspace with one new file in it is still an empty workspace."""
        async with self._without_its_sandbox(temporal_client, held, saved=True) as (handle, root):
            arguments = ["new/new.txt", "new"] if operation == "write" else []
            await handle.execute_update(operation, args=arguments)
            seen = await do(handle, "cat hello.txt")
            restored = await handle.execute_update(KeepSession.restorations)
            now = await handle.query(KeepSession.root)

        assert "edited\n" == seen
        assert [[root, now]] == restored
