"""The workflow of the demo: a `SandboxAgent` that repairs the project in its workspace."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agents import Runner
from agents.items import ToolCallOutputItem
from agents.run import RunConfig
from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest, SandboxAgent
from agents.sandbox.capabilities import Filesystem, Shell
from agents.sandbox.entries import BaseEntry, File
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec, SnapshotBase, SnapshotSpec
from temporalio import workflow

from sandbox_core.wire.agents_models import JsonObject, dump_state
from sandbox_core.workflow import TemporalSandboxClient, WorkflowSandboxSession

TEST_COMMAND = "python3 -m unittest -v"

_INSTRUCTIONS = f"""\
You repair a small Python project in your workspace. First run its tests with `{TEST_COMMAND}` and \
read the source. Then fix the source with apply_patch; do not change the tests. Run the tests \
again, and report in two sentences what was wrong and what you changed."""


@dataclass(frozen=True, kw_only=True)
class RepairRequest:
    """The provider to use, and the project: file contents by path."""

    provider: str
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RepairResult:
    """What the agent said and did.

    `before` is the output of its first tool call. `after` and `exit_code` are of the test run that
    the workflow makes when the agent is done. `session_state` names the deleted sandbox.
    """

    report: str
    before: str
    after: str
    exit_code: int
    diff: str
    session_state: JsonObject


@workflow.defn
class RepairWorkflow:
    """Repairs a project in a sandbox and reports."""

    @workflow.run
    async def run(self, request: RepairRequest) -> RepairResult:
        """Run the agent, and delete its sandbox even if that fails."""
        client = _InspectedClient(request.provider, request.files)
        agent = SandboxAgent(
            name="Repair",
            instructions=_INSTRUCTIONS,
            capabilities=[Shell(), Filesystem()],
            default_manifest=Manifest(entries=_entries(request.files)),
        )
        result = await Runner.run(
            agent,
            "The tests of this project fail. Please repair it.",
            run_config=RunConfig(
                sandbox=SandboxRunConfig(client=client, snapshot=NoopSnapshotSpec())
            ),
        )
        outputs = [item for item in result.new_items if isinstance(item, ToolCallOutputItem)]
        inspected = await client.inspection
        return RepairResult(
            report=str(result.final_output),
            before=str(outputs[0].output) if outputs else "",
            after=inspected.tests,
            exit_code=inspected.exit_code,
            diff=inspected.diff,
            session_state=inspected.session_state,
        )


@dataclass(frozen=True, kw_only=True)
class _Inspection:
    tests: str
    exit_code: int
    diff: str
    session_state: JsonObject


class _InspectedClient(TemporalSandboxClient):
    """Inspects the workspace before the SDK's runtime closes the session."""

    inspection: asyncio.Task[_Inspection]

    def __init__(self, name: str, files: Mapping[str, str]) -> None:
        super().__init__(name)
        self._files = files

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: BaseSandboxClientOptions | None = None,
    ) -> WorkflowSandboxSession:
        session = await super().create(snapshot=snapshot, manifest=manifest, options=options)

        async def inspect() -> None:
            # The SDK's runtime ignores a hook that fails or is cancelled; the task keeps the error.
            self.inspection = asyncio.create_task(_inspect(session, self._files))
            await self.inspection

        session.register_pre_stop_hook(inspect)
        return session


async def _inspect(session: SandboxSession, files: Mapping[str, str]) -> _Inspection:
    tests = await session.exec(TEST_COMMAND)
    return _Inspection(
        tests=(tests.stdout + tests.stderr).decode("utf-8", errors="replace"),
        exit_code=tests.exit_code,
        diff="".join([await _diff(session, *file) for file in files.items()]),
        session_state=dump_state(session.state),
    )


def _entries(files: dict[str, str]) -> dict[str | Path, BaseEntry]:
    return {path: File(content=content.encode()) for path, content in files.items()}


async def _diff(session: SandboxSession, path: str, before: str) -> str:
    after = (await session.read(Path(path))).read().decode("utf-8")
    return "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            f"a/{path}",
            f"b/{path}",
        )
    )
