"""Recorded histories replay with the current code, so that open workflows survive an upgrade."""

from __future__ import annotations

from pathlib import Path

import pytest
from record_histories import HISTORIES, WORKFLOWS, agents_plugin
from support import scheduled_activities
from temporalio.client import WorkflowHistory
from temporalio.worker import Plugin, Replayer
from temporalio.workflow import NondeterminismError
from workflows.changed import ChangedEveryOperation

from sandbox_core.wire.naming import split_activity_name
from sandbox_core.wire.operations import operations
from sandbox_core.worker import SandboxPlugin

RECORDED = sorted(HISTORIES.glob("*.json"))


def _history(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", RECORDED, ids=[path.stem for path in RECORDED])
async def test_a_recorded_history_replays(path: Path) -> None:
    """What was recorded is what the code would do again."""
    plugins: list[Plugin] = [SandboxPlugin()]
    if path.stem.partition("-")[0] in ("demo", "memories"):  # Agents run in them.
        plugins.append(agents_plugin())
    replayer = Replayer(workflows=WORKFLOWS, plugins=plugins)

    result = await replayer.replay_workflow(_history(path), raise_on_replay_failure=False)

    assert result.replay_failure is None


def test_every_operation_is_recorded() -> None:
    """A new row of the table needs a history."""
    recorded = {
        pair[1]
        for path in RECORDED
        for name in scheduled_activities(_history(path))
        if (pair := split_activity_name(name)) is not None
    }

    of_workflows = {row.name for row in operations()} - {"inspect"}  # Commands ask for it.
    assert of_workflows == recorded


async def test_a_workflow_that_asks_for_something_else_does_not_replay() -> None:
    """The check can fail."""
    replayer = Replayer(workflows=[ChangedEveryOperation], plugins=[SandboxPlugin()])

    with pytest.raises(NondeterminismError):
        await replayer.replay_workflow(_history(HISTORIES / "every-operation.json"))
