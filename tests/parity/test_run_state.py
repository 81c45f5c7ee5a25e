"""A saved run equals what the SDK saves without Temporal, and continues elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from parity.worker import agent_worker
from support import scheduled_activities
from temporalio.client import Client
from workflows.parity import (
    Converse,
    ConverseFrom,
    ConverseUntilApproval,
    Request,
    Transcript,
    converse_from,
    converse_until_approval,
    normalised,
)


async def _save(client: Client, request: Request) -> Transcript:
    async with agent_worker(client) as worker:
        saved: Transcript = await worker.run(ConverseUntilApproval.run, request)
    return saved


def _request(directory: Path, case: str = "approval") -> Request:
    return Request(case=case, directory=str(directory))


def _local() -> UnixLocalSandboxClient:
    return UnixLocalSandboxClient(inherit_host_environment=False)


class TestSavedSandbox:
    """What a run that waits for approval keeps of its sandbox."""

    @pytest.mark.parametrize("case", ["approval", "approval without a snapshot"])
    async def test_is_what_the_sdk_keeps(
        self, temporal_client: Client, tmp_path: Path, case: str
    ) -> None:
        """Every field of it, ids and directories aside."""
        expected = await converse_until_approval(_request(tmp_path, case), _local())

        actual = await _save(temporal_client, _request(tmp_path, case))

        assert normalised(expected["sandbox"]) == normalised(actual["sandbox"])

    async def test_knows_that_the_workspace_was_ready(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """These are set on the worker, when it starts and stops the real session."""
        saved = await _save(temporal_client, _request(tmp_path))
        state = saved["sandbox"]["session_state"]

        assert state["workspace_root_ready"] is True
        assert state["workspace_root_owned"] is True
        assert 64 == len(state["snapshot_fingerprint"])
        assert "local" == state["snapshot"]["type"]
        assert (tmp_path / "snapshots" / f"{state['snapshot']['id']}.tar").is_file()

    async def test_holds_files_that_are_not_text(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """The SDK itself cannot save them; the wire's own form of a state can."""
        async with agent_worker(temporal_client) as worker:
            transcript = await worker.run(Converse.run, _request(tmp_path, "binary file"))

        assert "data:image/png" in str(transcript["conversation"])


class TestSavedRun:
    """A run that was saved as JSON while it waited for approval."""

    async def test_is_what_the_sdk_saves(self, temporal_client: Client, tmp_path: Path) -> None:
        """The whole of it, ids, directories and the SDK's own names for the model aside."""
        expected = await converse_until_approval(_request(tmp_path), _local())

        actual = await _save(temporal_client, _request(tmp_path))

        assert normalised(expected) == normalised(actual)

    async def test_goes_on_in_another_workflow_on_another_worker(
        self, temporal_client: Client, tmp_path: Path
    ) -> None:
        """The workspace is as the agent left it, and the conversation ends as without Temporal."""
        request = _request(tmp_path)
        kept = await converse_until_approval(request, _local())
        expected = await converse_from(request, _local(), kept)

        saved = await _save(temporal_client, request)
        async with agent_worker(temporal_client) as worker:
            handle = await worker.start(ConverseFrom.run, request, saved)
            actual = await handle.result()

        assert "made\\nedited\\n" in str(actual["conversation"])
        assert normalised(expected) == normalised(actual)
        performed = scheduled_activities(await handle.fetch_history())
        assert "local-sandbox_create_session" not in performed

    async def test_goes_on_without_temporal(self, temporal_client: Client, tmp_path: Path) -> None:
        """Only the name of the backend keeps the SDK's own client from taking it as it is."""
        request = _request(tmp_path)
        saved = await _save(temporal_client, request)
        saved["sandbox"]["backend_id"] = _local().backend_id

        transcript = await converse_from(request, _local(), saved)

        assert "made\\nedited\\n" in str(transcript["conversation"])
