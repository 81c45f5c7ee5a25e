"""Checks what sandbox-core promises about sessions with several concurrent users."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, cast

from sandbox_core.testing.contract.fleet import ENDS_S, fleet_of
from sandbox_core.testing.contract.model import check, expect_equal
from sandbox_core.testing.contract.subject import Subject
from sandbox_core.testing.contract.whole_workflows import COMMANDS, Share


@check("durable", cost="sub-agents that share a workspace lose or repeat commands")
async def each_command_of_several_runs_once(subject: Subject) -> None:
    """A workflow and its child share a session while one of two workers is killed."""
    async with fleet_of(subject) as fleet:
        first, _ = await asyncio.gather(fleet.start(), fleet.start())
        handle = await fleet.client.start_workflow(
            cast("Any", Share).run,
            fleet.order(),
            id=f"contract-{uuid.uuid4().hex}",
            task_queue=fleet.queue,
        )
        await fleet.update(handle, Share.begun)
        first.kill()
        await fleet.start()
        lines = await asyncio.wait_for(handle.result(), ENDS_S)

    users = ("owner", "handle", "child")
    expected = [f"{user}.{number}" for user in users for number in range(COMMANDS)]
    expect_equal(sorted(expected), sorted(lines), "what the commands have written")
