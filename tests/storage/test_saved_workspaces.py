"""Saved workspaces are restored, in cases beyond the kit's `saved` checks."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support import attempts, running_worker, scheduled_activities, unique
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from workflows.snapshots import CannotKeep, ForkInFolder, KeepsWhole, Opens, Saves

from sandbox_core.wire.snapshot_ids import saved_id
from sandbox_core.worker import SandboxPlugin

LIMIT = timedelta(seconds=60)
"""A workflow task that fails for ever ends the test, and not its patience."""


async def test_a_snapshot_in_a_folder_is_not_changed_by_later_ones(
    temporal_client: Client, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    async with running_worker(temporal_client, ForkInFolder) as queue:
        seen = await temporal_client.execute_workflow(
            ForkInFolder.run, args=["local", folder], id=unique("forks"), task_queue=queue
        )

    assert {
        "fork": "second\n",
        "second": "second\n",
        "first": "first\n",
        "the fork": "the fork\n",
    } == seen


async def test_a_virtual_environment_is_restored_and_hydrated(temporal_client: Client) -> None:
    """Hard links, FIFOs, links to absolute paths, odd names: a virtual environment runs."""
    async with running_worker(temporal_client, KeepsWhole) as queue:
        seen = await temporal_client.execute_workflow(
            KeepsWhole.run,
            "local",
            id=unique("whole"),
            task_queue=queue,
            run_timeout=LIMIT,
        )

    made, before, restored, hydrated = seen
    assert "" == made
    assert "content\nodd\ndrive\nsaved\none file\nexecutable\na pipe\n" in before
    assert "True" in before.splitlines()
    assert [before, before] == [restored, hydrated]


async def test_what_could_not_be_restored_is_refused_at_once(temporal_client: Client) -> None:
    """By name, and the one before is as good as it was."""
    async with running_worker(temporal_client, CannotKeep) as queue:
        handle = await temporal_client.start_workflow(
            CannotKeep.run,
            "local",
            id=unique("kept"),
            task_queue=queue,
            run_timeout=LIMIT,
        )
        error, seen = await handle.result()
        history = await handle.fetch_history()

    assert "a/link is a link to ../../../elsewhere, outside of it" in error
    assert "first" == seen
    assert {1} == set(attempts(history))


class TestMissing:
    """What was saved is not where it was: an error, and never an empty workspace."""

    async def _saved(
        self, client: Client, storage: Path, *, save: bool = True, folder: Path | None = None
    ) -> dict[str, Any]:
        plugins = [SandboxPlugin(storage=str(storage))]
        async with running_worker(client, Saves, plugins=plugins) as queue:
            return await client.execute_workflow(
                Saves.run,
                args=["local", save, None if folder is None else str(folder)],
                id=unique("saves"),
                task_queue=queue,
                run_timeout=LIMIT,
            )

    async def _opened(
        self, client: Client, storage: Path, state: dict[str, Any], snapshot_id: str | None = None
    ) -> tuple[str | ApplicationError, list[str]]:
        plugins = [SandboxPlugin(storage=str(storage))]
        async with running_worker(client, Opens, plugins=plugins) as queue:
            handle = await client.start_workflow(
                Opens.run,
                args=["local", state, snapshot_id],
                id=unique("opens"),
                task_queue=queue,
                run_timeout=LIMIT,
            )
            seen: str | BaseException | None
            try:
                seen = await handle.result()
            except WorkflowFailureError as failed:
                seen = failed.cause
            assert isinstance(seen, str | ApplicationError)
            return seen, scheduled_activities(await handle.fetch_history())

    def _check(self, error: str | ApplicationError, place: str, snapshot_id: str) -> None:
        assert isinstance(error, ApplicationError), f"an empty workspace: {error!r}"
        assert "StorageError" == error.type
        assert error.non_retryable
        assert f"{place}: snapshot {snapshot_id} is missing" in error.message
        assert "Check that every worker uses the same storage" in error.message

    @pytest.mark.parametrize("elsewhere", [False, True], ids=["renamed", "another storage"])
    async def test_a_resumed_session_is_refused_before_it_has_a_sandbox(
        self, temporal_client: Client, tmp_path: Path, elsewhere: bool
    ) -> None:
        state = await self._saved(temporal_client, tmp_path)
        snapshot_id = state["snapshot"]["id"]
        storage = tmp_path / "other" if elsewhere else tmp_path
        if not elsewhere:
            saved = tmp_path / "snapshots" / snapshot_id
            saved.rename(saved.with_name("renamed"))

        error, scheduled = await self._opened(temporal_client, storage, state)

        self._check(error, f"storage {storage.as_uri()}", snapshot_id)
        assert ["local-sandbox_resume_session"] == scheduled

    async def test_a_session_created_from_it_is_refused_before_it_has_a_sandbox(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        state = await self._saved(temporal_client, tmp_path)
        snapshot_id = saved_id("of another storage")

        error, scheduled = await self._opened(temporal_client, tmp_path, state, snapshot_id)

        self._check(error, f"storage {tmp_path.as_uri()}", snapshot_id)
        assert "local-sandbox_start" not in scheduled

    @pytest.mark.parametrize("snapshot_id", ["mine", "8a3a6c9e-3b0c-4e5f-9d53-5b8a6d3c8f10"])
    async def test_what_was_never_saved_by_a_session_is_a_place_to_save_to(
        self, temporal_client: Client, tmp_path: Path, snapshot_id: str
    ) -> None:
        """As with the SDK's own clients, with an id of the user's or of a session never stopped."""
        state = await self._saved(temporal_client, tmp_path)

        seen, _ = await self._opened(temporal_client, tmp_path, state, snapshot_id)

        assert "" == seen

    async def test_a_snapshot_in_a_folder_is_looked_for_there(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        folder = tmp_path / "folder"
        state = await self._saved(temporal_client, tmp_path, folder=folder)
        (archive,) = folder.iterdir()
        archive.unlink()

        error, _ = await self._opened(temporal_client, tmp_path, state)

        self._check(error, f"folder {folder} on host {socket.gethostname()}", archive.stem)

    async def test_a_session_that_was_never_saved_starts_fresh(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        state = await self._saved(temporal_client, tmp_path, save=False)

        seen, _ = await self._opened(temporal_client, tmp_path, state)

        assert "" == seen

    async def test_what_is_there_is_opened(self, temporal_client: Client, tmp_path: Path) -> None:
        state = await self._saved(temporal_client, tmp_path)

        resumed, _ = await self._opened(temporal_client, tmp_path, state)
        created, _ = await self._opened(temporal_client, tmp_path, state, state["snapshot"]["id"])

        assert ["file"] * 2 == [resumed, created]
