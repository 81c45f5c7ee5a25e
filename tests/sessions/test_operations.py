"""A workflow's session does everything on the worker, with one activity per operation."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from parity.cases import write_skills
from support import running_worker, scheduled_activities, unique
from temporalio.client import Client
from workflows.sessions import EveryOperation, ResizeTerminal

from sandbox_core.testing.contract.files import tar_of
from sandbox_core.wire.naming import activity_name
from sandbox_core.wire.operations import operations
from sandbox_core.worker import SandboxPlugin

EXPECTED = {
    "running": True,
    "exec": ["hello\n", "oops\n", 3],
    "pty": [True, 0],
    "read": "fffe00",
    "ls": ["b", "inner.txt", "x.tar"],
    "apply_patch": "Done!",
    "validate_path_access": "hello.txt",
    "hydrated": "goodbye\n",
    "manifest applied": "hello\n",
    "entry applied": "extra",
    "port": "http://127.0.0.1:8080/",
    "list_skills": ["greeting"],
    "load_skill": {"status": "loaded", "skill_name": "greeting", "path": ".agents/greeting"},
}


class TestEveryOperation:
    """One workflow that performs every row of the table."""

    @pytest.mark.parametrize("max_cached_workflows", [1000, 0], ids=["cached", "always replayed"])
    async def test_answers_what_the_sdks_own_session_answers(
        self, temporal_client: Client, tmp_path: Path, max_cached_workflows: int
    ) -> None:
        """Also when the workflow is replayed from its history before every step."""
        skills = write_skills(tmp_path)
        async with running_worker(
            temporal_client,
            EveryOperation,
            plugins=[SandboxPlugin(local_sources=[skills])],
            max_cached_workflows=max_cached_workflows,
        ) as queue:
            handle = await temporal_client.start_workflow(
                EveryOperation.run,
                args=["local", tar_of(("inner.txt", b"inside")), str(skills)],
                id=unique("every"),
                task_queue=queue,
            )

            assert await handle.result() == EXPECTED

            history = await handle.fetch_history()
            performed = set(scheduled_activities(history))
            # What is about the names of files, and the size of a terminal, is in workflows of their
            # own; that a session is running the workflow knows.
            elsewhere = {"ping", "reap", "move", "same_file", "pty_resize", "running", "inspect"}
            of_sessions = {row.name for row in operations()} - elsewhere
            assert {activity_name("local", name) for name in of_sessions} == performed

    async def test_a_terminal_is_resized(self, temporal_client: Client) -> None:
        async with running_worker(temporal_client, ResizeTerminal) as queue:
            shown = await temporal_client.execute_workflow(
                ResizeTerminal.run, "local", id=unique("resize"), task_queue=queue
            )

        assert "50 132" == shown

    async def test_leaves_no_directory_behind(self, temporal_client: Client) -> None:
        """The sandbox is deleted with the session."""
        async with running_worker(temporal_client, EveryOperation) as queue:
            handle = await temporal_client.start_workflow(
                EveryOperation.run,
                args=["local", tar_of(("inner.txt", b"inside"))],
                id=unique("every"),
                task_queue=queue,
            )
            await handle.result()
            history = await handle.fetch_history()

        roots = _roots(history.to_json())
        assert 1 == len(roots)
        assert not _exists(roots.pop())


def _roots(history: str) -> set[str]:
    # Payloads are base64 in a history's JSON.
    payloads = re.findall(r'"data": "([A-Za-z0-9+/=]+)"', history)
    text = b" ".join(base64.b64decode(payload) for payload in payloads)
    return {match.decode() for match in re.findall(rb"/[\w/]*/sandbox-local-\w+", text)}


def _exists(path: str) -> bool:
    return Path(path).exists()
