"""An agent says and does in a workflow what it says and does without Temporal."""

from __future__ import annotations

from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from parity.cases import CASES, write_skills
from parity.worker import agent_worker
from support import attempts
from temporalio.client import Client
from workflows.parity import Converse, Request, Transcript, converse, normalised

_TRANSCRIPTS = [
    name for name in CASES if name not in {"memory, phase one", "memory, phase two", "binary file"}
]

# From 0.24 on the SDK tells the model of these, as the transcripts have it.
_RAISED_BEFORE_0_24 = (
    () if hasattr(BaseSandboxSession, "mv") else ("working directory outside", "image outside")
)


async def _without_temporal(request: Request) -> Transcript:
    return await converse(request, UnixLocalSandboxClient(inherit_host_environment=False))


class TestTranscript:
    """Whatever the model and the application are told, wall times and random ids aside."""

    @pytest.mark.parametrize("name", _TRANSCRIPTS)
    async def test_is_the_same_in_a_workflow(
        self, temporal_client: Client, tmp_path: Path, name: str
    ) -> None:
        """The SDK's own runner is the reference; and the workflow's history replays."""
        write_skills(tmp_path)
        request = Request(case=name, directory=str(tmp_path))

        expected = await _without_temporal(request)
        async with agent_worker(temporal_client, local_sources=[tmp_path]) as worker:
            handle = await worker.start(Converse.run, request)
            actual = await handle.result()
            failure = await worker.replay(await handle.fetch_history())

        del expected["raised"], actual["raised"]
        assert normalised(expected) == normalised(actual)
        assert failure is None


class TestError:
    """An error that ends the run, as the application catches it."""

    @pytest.mark.parametrize(
        "name",
        ["cwd that is missing", "run as", *_RAISED_BEFORE_0_24],
    )
    async def test_is_of_the_same_class_in_a_workflow(
        self, temporal_client: Client, tmp_path: Path, name: str
    ) -> None:
        """An except clause that works without Temporal works in a workflow."""
        request = Request(case=name, directory=str(tmp_path))

        expected = await _without_temporal(request)
        async with agent_worker(temporal_client) as worker:
            actual = await worker.run(Converse.run, request)

        assert expected["raised"] is not None
        assert expected["raised"] == actual["raised"]


class TestAnswer:
    """What the backend answers, if only that it cannot."""

    async def test_comes_soon(self, temporal_client: Client, tmp_path: Path) -> None:
        """The model is told of a directory that is no image at once: another attempt is no use."""
        async with agent_worker(temporal_client) as worker:
            handle = await worker.start(
                Converse.run, Request(case="image that is a directory", directory=str(tmp_path))
            )
            await handle.result()
            history = await handle.fetch_history()

        assert {1} == set(attempts(history))
