"""Secrets and disallowed files stay on the worker."""

from __future__ import annotations

import io
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest
from parity.cases import write_skills
from support import attempts, bytes_of, running_worker, unique
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from workflows.worker_side import (
    CopiesFromWorker,
    LoadsSkill,
    MisspellsSecret,
    MountsBucket,
    PassesSecret,
    SavesSecret,
    UsesSecret,
)

from sandbox_core.worker import AllowAllWorkerEnvVars, SandboxPlugin

SECRET = "s3cr3t-0f-th3-w0rk3r"


async def _failure(client: Client, plugin: SandboxPlugin, workflow: str, *args: str) -> str:
    """Return what a workflow fails with at once, in one attempt of its last activity."""
    plugins = [plugin]
    workflows = (
        CopiesFromWorker,
        LoadsSkill,
        MisspellsSecret,
        MountsBucket,
        PassesSecret,
        UsesSecret,
    )
    async with running_worker(client, *workflows, plugins=plugins) as queue:
        handle = await client.start_workflow(
            workflow,
            args=args,
            id=unique("worker-side"),
            task_queue=queue,
            execution_timeout=timedelta(seconds=60),
        )
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        assert {1} >= set(attempts(await handle.fetch_history()))
    assert isinstance(failed.value.cause, ApplicationError)
    assert SECRET.encode() not in bytes_of(await handle.fetch_history())
    return failed.value.cause.message


class TestWorkerEnv:
    """A variable of the manifest's environment whose value is the worker's."""

    async def test_is_there_for_commands_and_nowhere_else(
        self, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not in what they write, and not in the history."""
        monkeypatch.setenv("ACME_TOKEN", SECRET)
        plugins = [SandboxPlugin(worker_env=["ACME_TOKEN"])]
        async with running_worker(temporal_client, UsesSecret, plugins=plugins) as queue:
            handle = await temporal_client.start_workflow(
                UsesSecret.run, "ACME_TOKEN", id=unique("secret"), task_queue=queue
            )
            seen = await handle.result()

        assert [str(len(SECRET)), "out ***\n", "err ***\n", "pty ***\n"] == seen
        written = bytes_of(await handle.fetch_history())
        assert b"ACME_TOKEN" in written
        assert SECRET.encode() not in written

    async def test_takes_the_place_of_text_in_options(self, temporal_client: Client) -> None:
        """No activity gets them, so the history does not have the secret."""
        message = await _failure(temporal_client, SandboxPlugin(), "PassesSecret")

        assert (
            "the options of provider 'docker' contain what looks like a secret, "
            "labels.DEPLOY_TOKEN: "
        ) in message
        assert "WorkerEnv(name='NAME') in the manifest's environment" in message

    async def test_is_left_in_the_bytes_of_files_and_archives(
        self, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An archive that were changed could not be read any more."""
        monkeypatch.setenv("ACME_TOKEN", "0f-the-w0rker")
        plugins = [SandboxPlugin(worker_env=["ACME_TOKEN"])]
        async with running_worker(temporal_client, SavesSecret, plugins=plugins) as queue:
            seen = await temporal_client.execute_workflow(
                SavesSecret.run, "ACME_TOKEN", id=unique("saved"), task_queue=queue
            )

        with tarfile.open(fileobj=io.BytesIO(bytes.fromhex(seen[1]))) as saved:
            (name,) = (name for name in saved.getnames() if name.endswith("token.txt"))
            content = saved.extractfile(name)
            assert content is not None
            assert ("0f-the-w0rker", b"0f-the-w0rker") == (seen[0], content.read())

    async def test_all_are_allowed_only_with_a_loud_warning(
        self,
        temporal_client: Client,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """They are the worker's own, too."""
        monkeypatch.setenv("ACME_TOKEN", SECRET)
        plugins = [SandboxPlugin(worker_env=AllowAllWorkerEnvVars())]
        async with running_worker(temporal_client, UsesSecret, plugins=plugins) as queue:
            seen = await temporal_client.execute_workflow(
                UsesSecret.run, "ACME_TOKEN", id=unique("secret"), task_queue=queue
            )

        assert "out ***\n" == seen[1]
        assert "EVERY variable of this worker's environment" in caplog.text

    async def test_has_to_be_allowed(
        self, temporal_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The worker's environment also holds what no workflow should see."""
        monkeypatch.setenv("ACME_TOKEN", SECRET)
        plugin = SandboxPlugin(worker_env=["PATH"])
        message = await _failure(temporal_client, plugin, "UsesSecret", "ACME_TOKEN")

        assert (
            "WorkerEnv(name='ACME_TOKEN') is not allowed on this worker: name it in "
            "SandboxPlugin(worker_env=['ACME_TOKEN'])."
        ) == message

    async def test_has_to_be_set(self, temporal_client: Client) -> None:
        """An empty variable is no secret."""
        plugin = SandboxPlugin(worker_env=["ACME_UNSET"])
        message = await _failure(temporal_client, plugin, "UsesSecret", "ACME_UNSET")

        assert "WorkerEnv(name='ACME_UNSET') is not set in this worker's environment." == message

    async def test_with_a_misspelt_field_fails_the_workflow_at_once(
        self, temporal_client: Client
    ) -> None:
        """Any other error than ours would have its task repeated for ever."""
        message = await _failure(temporal_client, SandboxPlugin(), "MisspellsSecret", "nam")

        assert "WorkerEnv: no field 'nam', did you mean 'name'?" == message


class TestLocalSources:
    """Manifest entries that are copied from the worker's disk."""

    async def test_come_from_the_folders_that_the_worker_allows(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """Wherever the worker was started."""
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a.txt").write_text("from the folder\n")
        (tmp_path / "b.txt").write_text("from the file\n")
        plugins = [SandboxPlugin(local_sources=[tmp_path])]
        async with running_worker(temporal_client, CopiesFromWorker, plugins=plugins) as queue:
            seen = await temporal_client.execute_workflow(
                CopiesFromWorker.run,
                args=[str(tmp_path / "folder"), str(tmp_path / "b.txt")],
                id=unique("copies"),
                task_queue=queue,
            )

        assert "from the folder\nfrom the file\n" == seen

    @pytest.mark.parametrize("source", ["/etc", "{allowed}/../outside", "{allowed}/link", "folder"])
    async def test_come_from_nowhere_else(
        self, temporal_client: Client, tmp_path: Path, source: str
    ) -> None:
        """Not from beside such a folder, not through a link out of it, not from a relative path."""
        allowed, outside = tmp_path / "allowed", tmp_path / "outside"
        for folder in (allowed, outside):
            folder.mkdir()
            (folder / "a.txt").write_text("text")
        (allowed / "link").symlink_to(outside)
        named = source.format(allowed=allowed)
        plugin = SandboxPlugin(local_sources=[allowed])
        message = await _failure(
            temporal_client, plugin, "CopiesFromWorker", named, str(allowed / "a.txt")
        )

        assert (
            f"manifest entry 'folder' takes {named!r} from the worker's disk. This worker allows "
            f"{allowed}: name an absolute path in a directory of "
            f"SandboxPlugin(local_sources=[...])."
        ) == message


class TestLazySkills:
    """Skills that are copied from the worker's disk when the model asks for them."""

    async def test_are_loaded_whole_after_a_load_that_failed(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """What is there of a skill is not taken for the skill; the folder needs no grant."""
        plugins = [SandboxPlugin(local_sources=[tmp_path])]
        async with running_worker(temporal_client, LoadsSkill, plugins=plugins) as queue:
            seen = await temporal_client.execute_workflow(
                LoadsSkill.run,
                str(write_skills(tmp_path)),
                id=unique("skills"),
                task_queue=queue,
            )

        assert ["workspace_archive_write_error", "loaded", "hello\n"] == seen

    async def test_come_from_the_folders_that_the_worker_allows(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """They are not even listed from elsewhere."""
        skills = write_skills(tmp_path)
        plugin = SandboxPlugin(local_sources=[tmp_path / "other"])
        message = await _failure(temporal_client, plugin, "LoadsSkill", str(skills))

        assert (
            f"manifest entry '.agents' takes {str(skills)!r} from the worker's disk. This worker "
            f"allows {tmp_path / 'other'}: name an absolute path in a directory of "
            f"SandboxPlugin(local_sources=[...])."
        ) == message


class TestMounts:
    """Cloud storage in the manifest."""

    async def test_with_credentials_are_refused_before_anything_is_written(
        self, temporal_client: Client
    ) -> None:
        """A history keeps what it was given."""
        async with running_worker(temporal_client, MountsBucket) as queue:
            handle = await temporal_client.start_workflow(
                MountsBucket.run, id=unique("mount"), task_queue=queue
            )
            with pytest.raises(WorkflowFailureError) as failed:
                await handle.result()

        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.message.startswith(
            "the manifest has a cloud mount with credentials, which must not enter a"
        )
        assert b"secret-of-the-test" not in bytes_of(await handle.fetch_history())
