"""The example's page shows what a command writes while it runs."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import running_worker, unique
from temporalio.client import Client
from workflows.live_output import LiveJob, RunLive

SERVER = Path(__file__).parents[2] / "examples" / "follow" / "server.py"


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("follow_server", SERVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


async def request(port: int, path: str, *headers: str) -> AsyncIterator[str]:
    """Yield the lines of an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([f"GET {path} HTTP/1.1", *headers, "", ""]).encode())
    while line := await reader.readline():
        yield line.decode().rstrip()
    writer.close()


async def test_a_page_follows_a_command(
    temporal_client: Client, tmp_path: Path, example: ModuleType
) -> None:
    command = "echo begun; while ! test -e go; do sleep 0.01; done; exit 3"
    server = await example.serve(temporal_client, port=0)
    port = server.sockets[0].getsockname()[1]
    async with server, running_worker(temporal_client, RunLive) as queue:
        handle = await temporal_client.start_workflow(
            RunLive.run, LiveJob([command], str(tmp_path)), id=unique("page"), task_queue=queue
        )
        events: list[dict[str, Any]] = []
        lines = []
        async for line in request(port, f"/events?workflow={handle.id}"):
            lines.append(line)
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")))
                if events[-1].get("data") == "begun\n":
                    (tmp_path / "go").touch()
        rest = [
            line
            async for line in request(port, f"/events?workflow={handle.id}", "Last-Event-ID: 2")
        ]
        page = [line async for line in request(port, f"/?workflow={handle.id}")]
        unknown = [line async for line in request(port, "/events?workflow=nobody")]

    assert ["started", "output", "ended"] == [event["kind"] for event in events]
    assert 3 == events[-1]["exit_code"]
    assert ["event: end", "data:", ""] == lines[-3:]
    assert ["id: 3"] == [line for line in rest if line.startswith("id: ")]
    assert "HTTP/1.1 200 OK" == page[0]
    assert any("EventSource" in line for line in page)
    assert "HTTP/1.1 404 Not Found" == unknown[0]
