"""FIFOs in a container, which could block a reader or writer forever."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker_engine import DockerEngine
from temporalio.client import Client
from test_docker_lost import failure, kept_session

from sandbox_core.worker.handlers import special_files

pytest_plugins = ["docker_fixtures"]

pytestmark = [pytest.mark.any_sdk, pytest.mark.xdist_group("docker")]


@pytest.mark.parametrize("target", ["pipe", "link"])
@pytest.mark.parametrize(("update", "text"), [("read", ()), ("write", ("x" * 1_000_000,))])
async def test_one_is_refused_at_once_and_blocks_no_process(
    engine: DockerEngine,
    temporal_client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    update: str,
    text: tuple[str, ...],
    target: str,
) -> None:
    monkeypatch.setenv("SANDBOX_CORE_STORAGE", str(tmp_path))
    # Recognized by what it is, not because its operation has taken long.
    monkeypatch.setattr(special_files, "_SUSPICIOUS_S", 3600)
    async with kept_session(temporal_client) as handle:
        await handle.execute_update("do", "mkfifo pipe; ln -s pipe link")
        error = await failure(handle, update, target, *text)
        left = await handle.execute_update("do", "ps -eo args | grep '[c]at ' || :")

    assert "InvalidRequest" == error.type
    assert f"'{target}' is a FIFO" in error.message
    assert "" == left
