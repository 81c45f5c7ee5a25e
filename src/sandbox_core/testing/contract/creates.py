"""Checks that each create leaves one sandbox, and a failed one leaves none."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from temporalio.client import WorkflowFailureError

from sandbox_core.testing.contract.durable_worker import FAULT_VARIABLE, MAX_SANDBOXES_VARIABLE
from sandbox_core.testing.contract.durable_workflows import HoldSandbox
from sandbox_core.testing.contract.fleet import (
    ENDS_S,
    LABELS,
    Fleet,
    Handle,
    fleet_of,
    steady_fleet,
    until,
)
from sandbox_core.testing.contract.model import PromiseBroken, check, expect, expect_equal
from sandbox_core.testing.contract.subject import Subject

_UNNOTICED = "every lost answer leaks a sandbox"


@check("durable", needs=LABELS, cost="every killed worker leaks sandboxes")
async def one_sandbox_is_left_of_a_create_whose_worker_is_killed(subject: Subject) -> None:
    """If the worker is killed after the backend created a sandbox, exactly one remains."""
    async with fleet_of(subject) as fleet:
        first = await fleet.start(**_fault(fleet, "kill"))
        handle = await fleet.hold()
        await asyncio.to_thread(first.wait)
        await fleet.start()
        await _expect_one(fleet, handle)


async def _expect_one(fleet: Fleet, handle: Handle) -> None:
    """Expect that a workflow has one sandbox, and none when it has ended.

    Raises:
        PromiseBroken: It has another number of sandboxes.
    """
    await fleet.update(handle, HoldSandbox.do, "true")
    held = await fleet.sandboxes_of(handle)
    await fleet.finish(handle)

    expect_equal(1, len(held), "sandboxes of a workflow that has one session")
    expect_equal([], await fleet.sandboxes_of(handle), "left when it has ended")


@check("durable", needs=LABELS, cost=_UNNOTICED)
async def one_sandbox_is_left_of_a_create_whose_answer_is_lost(subject: Subject) -> None:
    """If the answer is lost after the backend created a sandbox, exactly one remains."""
    async with fleet_of(subject) as fleet:
        await fleet.start(**_fault(fleet, "raise"))
        await _expect_one(fleet, await fleet.hold())


@check("durable", needs=LABELS, cost=_UNNOTICED)
async def one_sandbox_is_left_of_a_create_that_is_too_slow(subject: Subject) -> None:
    """If a create ends after its attempt was given up, exactly one sandbox remains."""
    async with fleet_of(subject) as fleet:
        await fleet.start(**_fault(fleet, "late"))
        handle = await fleet.hold(replace(fleet.order(), start_to_close_s=3.0))
        await until(lambda: _is_attempted_again(handle), "no other attempt was made")
        _marker(fleet).touch()
        await _expect_one(fleet, handle)


async def _is_attempted_again(handle: Handle) -> bool:
    pending = (await handle.describe()).raw_description.pending_activities
    return any(activity.attempt > 1 for activity in pending)


@check("durable", needs=LABELS, cost="a worker creates more sandboxes than allowed")
async def a_create_waits_until_there_is_room(subject: Subject) -> None:
    """With `max_sandboxes=1`, a second create waits until the first sandbox is deleted."""
    async with fleet_of(subject) as fleet:
        await fleet.start(**{MAX_SANDBOXES_VARIABLE: "1"})
        first = await fleet.hold()
        await fleet.update(first, HoldSandbox.do, "true")
        second = await fleet.hold()
        await until(lambda: _goes_on(fleet, second), "the second create had no answer")
        expect(await _waits(second), "a second sandbox was made while there was no room")
        await fleet.finish(first)
        await _expect_one(fleet, second)


async def _goes_on(fleet: Fleet, handle: Handle) -> bool:
    """Return whether a workflow waits for room, or has a sandbox."""
    return await _waits(handle) or await fleet.has_sandboxes(handle, 1)


async def _waits(handle: Handle) -> bool:
    """Return whether a workflow waits for room, according to the summary of its timer."""
    events = (await handle.fetch_history()).events
    return any(b"waiting for room" in event.user_metadata.summary.data for event in events)


def _marker(fleet: Fleet) -> Path:
    return fleet.log.parent / "happened"


def _fault(fleet: Fleet, action: str) -> dict[str, str]:
    return {FAULT_VARIABLE: f"{action}:{_marker(fleet)}"}


@check("durable", needs=LABELS, cost="every cancelled agent leaks a sandbox")
async def a_cancelled_create_leaves_none(subject: Subject) -> None:
    """A create that is cancelled while the backend creates a sandbox leaves none."""
    async with fleet_of(subject) as fleet:
        await fleet.start(**_fault(fleet, "hang"))
        handle = await fleet.hold()
        await until(lambda: fleet.has_sandboxes(handle, 1), "no sandbox was made")
        await handle.cancel()
        with suppress(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), ENDS_S)

        expect_equal([], await fleet.sandboxes_of(handle), "left by a cancelled create")


@check("durable", needs=LABELS, cost="every failed agent leaks a sandbox")
async def a_first_start_that_fails_leaves_none(subject: Subject) -> None:
    """If the first start fails, the sandbox is deleted and the start's error is raised."""
    fleet = await steady_fleet(subject)
    handle = await fleet.hold(replace(fleet.order(), spoilt=True))
    try:
        await asyncio.wait_for(handle.result(), ENDS_S)
    except WorkflowFailureError as failed:
        expect("hello.txt" in str(failed.cause), f"another error: {failed.cause}")
    else:
        raise PromiseBroken("a manifest that contradicts itself was applied")

    expect_equal([], await fleet.sandboxes_of(handle), "left by a start that failed")
