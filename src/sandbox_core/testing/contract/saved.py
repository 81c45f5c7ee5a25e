"""Checks what sandbox-core promises about workspaces with the provider, without failures."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, cast

from sandbox_core.testing.contract.fleet import ENDS_S, steady_fleet
from sandbox_core.testing.contract.model import check, expect, expect_equal
from sandbox_core.testing.contract.subject import Subject
from sandbox_core.testing.contract.whole_workflows import (
    Fork,
    NameFiles,
    ResumeDeleted,
    SaveWhole,
)

_WHOLE = """\
content
odd
drive
saved
one file
executable
a pipe
folder/file
/etc/passwd
/nowhere
"""


async def _said(subject: Subject, kind: type) -> Any:  # noqa: ANN401 - the workflow's
    """Run a workflow to its end, and return its result."""
    fleet = await steady_fleet(subject)
    ran = fleet.client.execute_workflow(
        cast("Any", kind).run,
        fleet.order(),
        id=f"contract-{uuid.uuid4().hex}",
        task_queue=fleet.queue,
    )
    return await asyncio.wait_for(ran, ENDS_S)


@check("durable", cost="an agent's files are lost or altered after a pause")
async def a_workspace_is_saved_whole(subject: Subject) -> None:
    """Links, FIFOs, odd names: everything not ephemeral is restored, or the save is refused."""
    made, of_pipe, before, of_link, after = await _said(subject, SaveWhole)

    expect_equal("", made, "the output of building the workspace")
    expect(not of_pipe or "pipe" in of_pipe, f"refused without a name: {of_pipe}")
    whole = _WHOLE.replace("a pipe\n", "") if of_pipe else _WHOLE
    expect_equal(f"{whole}more\n", before, "what there was")
    if of_link:
        expect("folder/link" in of_link, f"refused without a name: {of_link}")
    else:  # A backend may have saved it, with the other changes.
        whole = whole.replace("content\n", "later\n")
    expect_equal(f"{whole}without what is ephemeral\n", after, "what came back")


@check("durable", cost="a fork or a later save destroys a saved workspace")
async def a_snapshot_is_never_changed(subject: Subject) -> None:
    """Neither later saves nor forks change a snapshot: each state opens its own."""
    said = await _said(subject, Fork)

    expected = {"fork": "second", "first": "first", "second": "second", "the fork": "the fork"}
    expect_equal({name: f"{text}\n" for name, text in expected.items()}, said, "the files")


@check("durable", cost="an agent that is resumed after its end fails or finds deleted files")
async def a_deleted_sandbox_is_made_afresh(subject: Subject) -> None:
    """A state saved before its sandbox was deleted makes an empty one, as in the SDK."""
    expect_equal("empty\n", await _said(subject, ResumeDeleted), "what it finds")


@check("durable", cost="the wrong file is overwritten or moved")
async def files_are_named(subject: Subject) -> None:
    """Files are compared, created and moved by name, with any version of the Agents SDK."""
    said = await _said(subject, NameFiles)

    made = [said.pop(name) for name in ("make odd\udc80", "make odd\udc81")]
    expect(made[0] == made[1], f"names that are no text: {made}")
    expect_equal(str(made.count("None")), said.pop("odd").strip(), "the files of such names")
    expect_equal(
        {
            "hard is source": "True",
            "link is source": "True",
            "old is source": "False",
            "missing is source": "False",
            "link itself is source": "False",
            "create made/new": "None",
            "create old": "FileExistsError",
            "create dangling": "FileExistsError",
            "create sub": "FileExistsError",
            "move missing to sub/missing": "ExecNonZeroError",
            "move sub to other": "ExecNonZeroError",
            "move old to sub": "ExecNonZeroError",
            "begin digits": "b'0123'",
            "left": "sourcesourcenew",
        },
        said,
        "the answers",
    )
