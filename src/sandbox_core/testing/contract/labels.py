"""Checks `SupportsLabels`: `find` returns the labelled sandboxes and no others."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import cast

from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.providers import LabelledSandbox, SupportsRelabel
from sandbox_core.testing.contract.model import check, expect, expect_equal
from sandbox_core.testing.contract.subject import Client, Subject

_ABLE = ("labels", "identity", "destroy")
_ORPHANS = "a killed create leaks a sandbox, and `sandbox-core reap` misses orphans"
_FOREIGN = "`sandbox-core reap` deletes other people's sandboxes"

AWKWARD = {
    "spaces": " a b ",
    "unicode": "größe 大小 🦀",
    "equals": "a=b==c",
    "comma": "a,b",
    "quotes": '"it\'s" {\\} $HOME',
    "long": "x" * 1000,
    "empty": "",
}
"""A workflow id may be any text of up to a thousand characters."""


def _labels() -> dict[str, str]:
    """Return labels that no other sandbox has."""
    return {"owner.workflow": f"first-{uuid.uuid4().hex}", "made-for": f"r-{uuid.uuid4().hex}"}


async def _make(
    subject: Subject, labels: Mapping[str, str], *, start: bool = False
) -> SandboxSession:
    labelled = subject.labelling.labelled(subject.client, labels)
    return await subject.make(client=labelled, start=start)


async def _find(subject: Subject, labels: Mapping[str, str]) -> list[LabelledSandbox]:
    return list(await subject.within(subject.labelling.find(subject.client, labels)))


async def _made(subject: Subject, labels: Mapping[str, str]) -> LabelledSandbox:
    """Create a sandbox, and return it as found by its labels.

    Raises:
        PromiseBroken: It is not found, or others are.
    """
    session = await _make(subject, labels)
    found = await _find(subject, labels)
    _expect_found([subject.identity(session.state)], found)
    return found[0]


def _expect_found(expected: list[str], found: list[LabelledSandbox]) -> None:
    expect_equal(expected, [sandbox.sandbox_id for sandbox in found], "found by its labels")


async def _ids(subject: Subject, labels: Mapping[str, str]) -> list[str]:
    return [sandbox.sandbox_id for sandbox in await _find(subject, labels)]


async def _relabel(subject: Subject, sandbox_id: str, labels: Mapping[str, str]) -> None:
    provider = cast("SupportsRelabel[Client]", subject.provider)
    await subject.within(provider.relabel(subject.client, sandbox_id, labels))


@check("labels", needs=_ABLE, cost=_ORPHANS)
async def a_sandbox_is_found_from_its_creation_on(subject: Subject) -> None:
    """A sandbox is found by its labels as soon as `create` returns, before its start."""
    labels = _labels()
    session = await _make(subject, labels)
    found = await _find(subject, labels)

    expect_equal([subject.identity(session.state)], [s.sandbox_id for s in found], "what is found")
    expect(labels.items() <= found[0].labels.items(), f"its labels: {dict(found[0].labels)!r}")


@check("labels", needs=_ABLE, cost=_FOREIGN)
async def only_what_has_all_labels_is_found(subject: Subject) -> None:
    """A sandbox is found by any of its labels, and by no other name or value."""
    labels = _labels()
    session = await _make(subject, labels)
    sandbox_id = subject.identity(session.state)
    for name, value in labels.items():
        expect_equal([sandbox_id], await _ids(subject, {name: value}), f"found by {name} alone")
        for other in (f"{value}x", value[:-1], value.upper(), ""):
            expect_equal([], await _ids(subject, {**labels, name: other}), f"found by {other!r}")
    expect_equal([], await _ids(subject, {**labels, "more": ""}), "found by a label it has not")


@check("labels", needs=_ABLE, cost=_FOREIGN)
async def nothing_is_found_for_the_impossible(subject: Subject) -> None:
    """`find` returns nothing for labels that no sandbox has."""
    await _make(subject, _labels())
    found = await _ids(subject, {"owner.workflow": f"nobody-{uuid.uuid4().hex}"})

    expect_equal([], found, "what is found for a label that no sandbox has")


@check("labels", needs=_ABLE, cost=_FOREIGN)
async def an_unlabelled_sandbox_is_not_found(subject: Subject) -> None:
    """Sandboxes without labels are not found; `labelled` does not change the client."""
    labels = _labels()
    session = await _make(subject, labels)
    await subject.make(start=False)

    expect_equal([subject.identity(session.state)], await _ids(subject, labels), "what is found")


@check("labels", needs=_ABLE, cost=_ORPHANS)
async def any_value_is_kept(subject: Subject) -> None:
    """Values may be any text of up to a thousand characters."""
    labels = {**AWKWARD, **_labels()}
    session = await _make(subject, labels)
    found = await _find(subject, labels)

    expect_equal([subject.identity(session.state)], [s.sandbox_id for s in found], "what is found")
    for name, value in labels.items():
        expect_equal(value, found[0].labels.get(name), f"label {name}")


@check("labels", needs=_ABLE, cost="`sandbox-core reap --older-than` deletes new sandboxes or none")
async def the_time_of_creation_has_a_zone(subject: Subject) -> None:
    """`created` is None or timezone-aware, and about now for a new sandbox."""
    labels = _labels()
    found = await _made(subject, labels)
    if found.created is None:
        return
    expect(found.created.tzinfo is not None, f"a time without a zone: {found.created!r}")
    age = datetime.now(timezone.utc) - found.created

    expect(abs(age) < timedelta(minutes=5), f"a new sandbox is {age} old")


@check("labels", needs=_ABLE, cost=_ORPHANS)
async def all_pages_are_read(subject: Subject) -> None:
    """`find` returns all sandboxes, however many there are."""
    labels = _labels()
    count = min(subject.backend.max_sandboxes, 25)
    made = [subject.identity((await _make(subject, labels)).state) for _ in range(count)]

    expect_equal(sorted(made), sorted(await _ids(subject, labels)), "what is found")


@check(
    "labels",
    needs=(*_ABLE, "relabel"),
    cost="a session that another workflow resumed is reaped while in use",
)
async def relabelling_changes_what_it_names(subject: Subject) -> None:
    """`relabel` changes and adds labels, keeps the others, and can be repeated."""
    labels = _labels()
    before = await _made(subject, labels)
    sandbox_id = before.sandbox_id
    changed = {**labels, "owner.workflow": f"second-{uuid.uuid4().hex}", "more": "größe"}
    for _ in range(2):
        await _relabel(subject, sandbox_id, {k: changed[k] for k in ("owner.workflow", "more")})
    found = await _find(subject, changed)

    expect_equal([sandbox_id], [s.sandbox_id for s in found], "found by the new labels")
    expect_equal([], await _ids(subject, labels), "found by the old labels")
    expect_equal(before.created, found[0].created, "when it was made")
    expect(before.labels.keys() <= found[0].labels.keys(), "a label is gone")


@check("labels", needs=(*_ABLE, "relabel"), cost=_FOREIGN)
async def relabelling_concerns_one_sandbox(subject: Subject) -> None:
    """`relabel` changes only its sandbox; of concurrent calls, one wins completely."""
    labels = _labels()
    first, second = await _make(subject, labels), await _make(subject, labels)
    new = {"owner.workflow": f"second-{uuid.uuid4().hex}"}
    sandbox_id = subject.identity(first.state)
    await asyncio.gather(*(_relabel(subject, sandbox_id, new) for _ in range(3)))

    expect_equal([subject.identity(second.state)], await _ids(subject, labels), "found unchanged")
    expect_equal([sandbox_id], await _ids(subject, new), "found changed")


@check("labels", needs=_ABLE, cost=_ORPHANS)
async def a_replacement_is_labelled(subject: Subject) -> None:
    """A replacement made by `resume` or `start` has the client's labels."""
    session = await _make(subject, _labels(), start=True)
    await subject.destroy(subject.identity(session.state))
    later = _labels()
    labelled = subject.labelling.labelled(subject.client, later)
    try:
        resumed = await subject.within(labelled.resume(session.state))
        await subject.within(resumed.start())
    except Exception:  # noqa: BLE001 - a backend need not make replacements
        expect_equal([], await _ids(subject, later), "left by a resume that failed")
        return
    subject.keep(resumed, labelled)

    expect_equal([subject.identity(resumed.state)], await _ids(subject, later), "what is found")


@check("labels", needs=_ABLE, cost="deleted sandboxes are deleted again and again")
async def what_is_destroyed_is_not_found(subject: Subject) -> None:
    """A sandbox is not found after `destroy` or the client's `delete`."""
    for by_id in (True, False):
        labels = _labels()
        session = await _make(subject, labels)
        sandbox_id = subject.identity(session.state)
        _expect_found([sandbox_id], await _find(subject, labels))
        if by_id:
            await subject.destroy(sandbox_id)
        else:
            await subject.delete(session)

        expect_equal([], await _ids(subject, labels), "found after its end")


@check(
    "labels",
    needs=_ABLE,
    cost="`sandbox-core reap` misses paused sandboxes, which cost money",
)
async def what_does_not_run_is_found(subject: Subject) -> None:
    """A sandbox that was shut down but still exists is found."""
    labels = _labels()
    session = await _make(subject, labels, start=True)
    sandbox_id = subject.identity(session.state)
    await subject.within(session.shutdown())
    found = await _ids(subject, labels)
    there = await subject.exists(sandbox_id) if subject.can("exists") else bool(found)

    expect_equal([sandbox_id] if there else [], found, "found after its shutdown")


@check("labels", needs=_ABLE, cost="workflow ids leak into states")
async def the_state_does_not_hold_them(subject: Subject) -> None:
    """A session's state does not contain the labels."""
    labels = _labels()
    session = await _make(subject, labels, start=True)
    text = str(subject.client.serialize_session_state(session.state))

    for value in labels.values():
        expect(value not in text, f"the state holds the label {value!r}")
