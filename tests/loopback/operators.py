"""What operators do with the sandboxes of a hosted service, with a loopback server in its place."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

import pytest
from cli.command import run_sandbox
from cli.screen import Screen, shell
from support import running_worker, unique
from temporalio.client import Client
from workflows.visited import Visited

from loopback.contract import LoopbackContract
from sandbox_core.testing.contract import Backend, Subject


class OperatorsContract(LoopbackContract):
    """The provider kit, and the command `sandbox-core` from outside of the worker."""

    own_root: ClassVar[bool] = True
    """Whether commands see the workspace where the vendor's API says that it is."""

    @pytest.mark.extended
    async def test_operators_reach_its_sandboxes(
        self,
        contract_subject: Subject,
        contract_backend: Backend,
        temporal_client: Client,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """With `ls`, `exec`, `cp`, `shell` and `logs`."""
        assert contract_backend.backend_ids is not None
        name = contract_subject.provider.name
        monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", name)
        address = temporal_client.service_client.config.target_host
        variables = {**os.environ, "TEMPORAL_ADDRESS": address}
        variables.pop("TERM", None)
        before = await contract_backend.backend_ids()

        async def run(*arguments: str) -> tuple[int, str]:
            ran = await asyncio.to_thread(run_sandbox, *arguments, **variables)
            return ran.returncode, ran.stdout + ran.stderr

        async with running_worker(temporal_client, Visited) as queue:
            handle = await temporal_client.start_workflow(
                Visited.run, name, id=unique("visited"), task_queue=queue
            )
            await handle.execute_update(Visited.exec, "mkdir made && echo text >made/file")
            (sandbox_id,) = await contract_backend.backend_ids() - before

            code, listed = await run("ls", "--json")
            (shown,) = json.loads(listed)["sandboxes"]
            assert (0, sandbox_id, "open") == (code, shown["sandbox_id"], shown["owner"])
            await self._visit(run, sandbox_id, tmp_path)
            async with shell(variables, sandbox_id) as screen:
                await self._use(screen)
            await handle.execute_update(Visited.exec, "cat made/file; false")
            code, logs = await run("logs", handle.id)
            await handle.signal(Visited.end)
            await handle.result()

        transcript = "$ cat made/file; false\ntext\n[exit 1]\n"
        assert (0, True) == (code, logs.endswith(transcript)), logs

    async def _visit(
        self,
        run: Callable[..., Awaitable[tuple[int, str]]],
        sandbox_id: str,
        tmp_path: Path,
    ) -> None:
        ran = await run("exec", sandbox_id, "--", "sh", "-c", "cat made/file; exit 3")
        assert (3, "text\n") == ran
        for source, target in (
            (f"{sandbox_id}:made/file", str(tmp_path / "file")),
            (str(tmp_path / "file"), f"{sandbox_id}:"),
        ):
            assert (0, "") == await run("cp", source, target)
        assert (0, "text\n") == await run("exec", sandbox_id, "--", "cat", "file")
        if not self.own_root:
            return
        for source, target in (
            (f"{sandbox_id}:made", str(tmp_path / "out")),
            (str(tmp_path / "out"), f"{sandbox_id}:made"),
        ):
            assert (0, "") == await run("cp", source, target)
        assert (0, "text\n") == await run("exec", sandbox_id, "--", "cat", "made/out/file")

    async def _use(self, screen: Screen) -> None:
        screen.type("echo $((6 * 7)); exit 7\n")
        await screen.shows("42\r")
        assert 7 == await screen.ended()
