"""A real model gets the same requests from a workflow as without Temporal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from agents import OpenAIProvider
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from openai import AsyncOpenAI
from openai.types.responses import ResponseOutputItem
from openai_server import Request as ModelRequest
from openai_server import openai_server
from parity.cases import CASES
from parity.worker import agent_worker
from temporalio.client import Client
from workflows.parity import Converse, Request, converse, next_step, normalised


def _answer(request: ModelRequest) -> Sequence[ResponseOutputItem]:
    return next_step(CASES[request["model"]], request["input"], "Done.")


@pytest.mark.parametrize("name", ["commands", "patch", "images", "patch that does not fit"])
async def test_the_requests_are_the_same(
    temporal_client: Client, tmp_path: Path, name: str
) -> None:
    """Tools, instructions and whatever the tools have answered: text, patches and images."""
    request = Request(case=name, directory=str(tmp_path))
    with openai_server(_answer) as server:
        client = AsyncOpenAI(base_url=server.base_url, api_key="s3cr3t-loopback", max_retries=0)
        models = OpenAIProvider(openai_client=client)

        await converse(request, UnixLocalSandboxClient(inherit_host_environment=False), models)
        expected, server.requests[:] = server.requests[:], []
        async with agent_worker(temporal_client, models=models) as worker:
            await worker.run(Converse.run, request)

        assert len(CASES[name].steps) == len(expected)
        assert normalised(expected) == normalised(server.requests)
