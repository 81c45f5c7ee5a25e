"""An agent says and does the same in a workflow as without Temporal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from parity.cases import CASES, write_skills
from parity.worker import agent_worker
from support import attempts
from temporalio.client import Client, WorkflowHistory
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


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of a case without Temporal, and in a workflow."""

    expected: Transcript
    actual: Transcript
    failure: Exception | None
    """Why the workflow's history does not replay."""


@pytest.mark.asyncio(loop_scope="class")
@pytest.mark.timeout(300)
class TestTranscript:
    """Whatever the model and the application are told, wall times and random ids aside."""

    # One worker runs them all, and one replayer replays them: each takes a second to make.
    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @staticmethod
    async def seen(
        temporal_address: str, tmp_path_factory: pytest.TempPathFactory
    ) -> Mapping[str, Seen]:
        folder = tmp_path_factory.mktemp("transcripts")
        requests = []
        for number, name in enumerate(_TRANSCRIPTS):
            own = folder / str(number)
            write_skills(own)
            requests.append(Request(case=name, directory=str(own)))
        client = await Client.connect(temporal_address)
        some = asyncio.Semaphore(4)

        async with agent_worker(client, local_sources=[folder]) as worker:

            async def both(request: Request) -> tuple[Transcript, Transcript, WorkflowHistory]:
                async with some:
                    expected = await _without_temporal(request)
                    handle = await worker.start(Converse.run, request)
                    return expected, await handle.result(), await handle.fetch_history()

            ran = await asyncio.gather(*map(both, requests))
            failures = await worker.replay_all([history for _, _, history in ran])
        return {
            name: Seen(expected=expected, actual=actual, failure=failure)
            for name, (expected, actual, _), failure in zip(
                _TRANSCRIPTS, ran, failures, strict=True
            )
        }

    @pytest.mark.parametrize("name", _TRANSCRIPTS)
    async def test_is_the_same_in_a_workflow(self, seen: Mapping[str, Seen], name: str) -> None:
        """The SDK's own runner is the reference; and the workflow's history replays."""
        case = seen[name]

        del case.expected["raised"], case.actual["raised"]
        assert normalised(case.expected) == normalised(case.actual)
        assert case.failure is None


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
