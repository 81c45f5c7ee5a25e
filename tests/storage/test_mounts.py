"""A bucket mounted in a sandbox with credentials that only the worker has."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support import bytes_of, running_worker, unique
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from workflows.worker_side import ReadsBucket, ReadsBucketAgain

from sandbox_core.worker import SandboxPlugin

pytestmark = pytest.mark.skipif(
    not Path("/dev/fuse").exists(), reason="this machine has no /dev/fuse to mount with"
)

KEY_ID = "AKIA0F7H3W0RK3R"
KEY = "s3cr3t-k3y-0f-th3-w0rk3r"


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with a file, and its credentials in the worker's environment."""
    monkeypatch.setenv("BUCKET_KEY_ID", KEY_ID)
    monkeypatch.setenv("BUCKET_KEY", KEY)
    name = unique("bucket")
    for path, content in ((name, b""), (f"{name}/a.txt", b"in the bucket\n")):
        request = urllib.request.Request(
            f"{s3_server}/{path}",
            data=content,
            # The server takes a body of urllib's own default type for a form.
            headers={"Content-Type": "application/octet-stream"},
            method="PUT",
        )
        urllib.request.urlopen(request).close()
    return name


async def _start(
    client: Client, queue: str, *arguments: object
) -> WorkflowHandle[ReadsBucket, dict[str, Any]]:
    return await client.start_workflow(
        ReadsBucket.run, args=arguments, id=unique("bucket"), task_queue=queue
    )


class TestMount:
    """A mount whose credentials are references to the worker's environment."""

    @pytest.mark.parametrize("resumes", [0, 2])
    async def test_has_the_credentials_and_the_history_has_their_names(
        self, temporal_client: Client, bucket: str, s3_server: str, resumes: int
    ) -> None:
        """However often it is resumed; they are taken out of what commands show of them."""
        plugins = [SandboxPlugin(worker_env=["BUCKET_KEY_ID", "BUCKET_KEY"])]
        async with running_worker(temporal_client, ReadsBucket, plugins=plugins) as queue:
            handle = await _start(temporal_client, queue, bucket, s3_server, "rclone", resumes)
            seen = await handle.result()
            written = bytes_of(await handle.fetch_history())

        assert {
            "file": "in the bucket\n",
            "length of the key": len(KEY),
            "credentials": ["${worker_env:BUCKET_KEY_ID}", "${worker_env:BUCKET_KEY}"],
        } == {key: value for key, value in seen.items() if key != "config"}
        assert {"access_key_id = ***", "secret_access_key = ***"} <= set(seen["config"])
        assert b"${worker_env:BUCKET_KEY}" in written
        assert KEY.encode() not in written
        assert KEY_ID.encode() not in written

    @pytest.mark.parametrize("first", ["true", "umount in/data"], ids=["as it is", "unmounted"])
    async def test_outlives_its_worker(
        self, temporal_client: Client, bucket: str, s3_server: str, first: str
    ) -> None:
        """The next one mounts it anew, and keeps its credentials out of what is saved."""
        queue = unique("queue")
        handle = await temporal_client.start_workflow(
            ReadsBucketAgain.run,
            args=[bucket, s3_server, first],
            id=unique("bucket"),
            task_queue=queue,
        )
        for last in (False, True):
            async with running_worker(
                temporal_client,
                ReadsBucketAgain,
                plugins=[SandboxPlugin(worker_env=["BUCKET_KEY_ID", "BUCKET_KEY"])],
                task_queue=queue,
            ):
                await handle.execute_update(ReadsBucketAgain.read)
                if last:
                    await handle.signal(ReadsBucketAgain.again)
                    seen = await handle.result()
        written = bytes_of(await handle.fetch_history())

        assert [*["in the bucket\n"] * 2, "made.txt"] == seen
        assert KEY.encode() not in written

    async def test_says_nothing_of_them_where_it_fails(
        self, temporal_client: Client, bucket: str, s3_server: str
    ) -> None:
        """The program that mounts is not there."""
        plugins = [SandboxPlugin(worker_env=["BUCKET_KEY_ID", "BUCKET_KEY"])]
        message, written = await _failure(temporal_client, plugins, bucket, s3_server)

        assert ("sandbox operation failed while using a protected mount configuration") == message
        assert KEY.encode() not in written
        assert KEY_ID.encode() not in written

    async def test_has_to_be_allowed_each_variable(
        self, temporal_client: Client, bucket: str, s3_server: str
    ) -> None:
        """Nothing is created without."""
        plugins = [SandboxPlugin(worker_env=["BUCKET_KEY_ID"])]
        message, written = await _failure(temporal_client, plugins, bucket, s3_server)

        assert (
            "WorkerEnv(name='BUCKET_KEY') is not allowed on this worker: name it in "
            "SandboxPlugin(worker_env=['BUCKET_KEY'])."
        ) == message
        assert KEY_ID.encode() not in written


async def _failure(
    client: Client, plugins: list[SandboxPlugin], bucket: str, endpoint: str
) -> tuple[str, bytes]:
    async with running_worker(client, ReadsBucket, plugins=plugins) as queue:
        handle = await _start(client, queue, bucket, endpoint, "mountpoint")
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        written = bytes_of(await handle.fetch_history())
    assert isinstance(failed.value.cause, ApplicationError)
    return failed.value.cause.message, written
