"""A session's operations on file names."""

from __future__ import annotations

import io
from collections.abc import Awaitable
from pathlib import Path

from agents.sandbox.errors import SandboxError
from temporalio import workflow
from workflows.sessions import new_session

from sandbox_core.errors import SandboxCoreError
from sandbox_core.workflow import WorkflowSandboxSession

PREPARE = """
mkdir -p sub taken
printf source > source.txt; printf old > old.txt; printf 0123456789 > digits.txt
ln -s source.txt link; ln -s ../outside dangling; ln source.txt hard.txt
"""


EXPECTED = {
    "same: a hard link": "True",
    "same, not followed: a hard link": "True",
    "same: a symlink": "True",
    "same, not followed: a symlink": "False",
    "same: another file": "False",
    "same, not followed: another file": "False",
    "same: nothing": "False",
    "same, not followed: nothing": "False",
    "moved": "source",
    "moved over": "source",
    "moved link": "source.txt\ndangling\ndata.bin\ndigits.txt\nhello.txt\nold.txt\nsub\ntaken\n",
    "move of nothing": "ExecNonZeroError",
    "move of nothing to something": "ExecNonZeroError",
    "move of a folder": "ExecNonZeroError",
    "move to a folder": "ExecNonZeroError",
    "move to outside": "InvalidManifestPathError",
    "first": "b'0123'",
    "more": "b'0123456789'",
    "none": "InvalidRequest",
    "no file": "WorkspaceReadNotFoundError",
    "create new": "None",
    "create new again": "FileExistsError",
    "create a file": "FileExistsError",
    "create a dangling link": "FileExistsError",
    "create a folder": "FileExistsError",
    "created": "new",
    "not written over": "source",
    "left": "\n".join(
        [
            "./dangling",
            "./data.bin",
            "./digits.txt",
            "./hello.txt",
            "./made",
            "./made/new.txt",
            "./old.txt",
            "./sub",
            "./sub/link",
            "./sub/moved.txt",
            "./taken",
            "0\n",
        ]
    ),
}
"""What it says, on every backend and with every version of the Agents SDK."""


async def _said(asked: Awaitable[object]) -> str:
    try:
        return repr(await asked)
    except (SandboxError, SandboxCoreError, FileExistsError) as error:
        # The class that a builtin error has after the wire is the builtin's and ours.
        exists = isinstance(error, FileExistsError)
        return FileExistsError.__name__ if exists else type(error).__name__


async def _text(session: WorkflowSandboxSession, path: str) -> str:
    return bytes((await session.read(Path(path))).read()).decode()


@workflow.defn
class NamesOfFiles:
    """Moves, compares, reads the beginning of and creates files."""

    @workflow.run
    async def run(self, provider: str) -> dict[str, str]:
        seen: dict[str, str] = {}
        async with new_session(provider) as session:
            await session.exec(PREPARE)
            for name, left, right in (
                ("a hard link", "source.txt", "hard.txt"),
                ("a symlink", "link", "source.txt"),
                ("another file", "source.txt", "old.txt"),
                ("nothing", "source.txt", "missing"),
            ):
                seen[f"same: {name}"] = await _said(session.same_file(left, right))
                not_followed = session.same_file(left, right, follow_symlinks=False)
                seen[f"same, not followed: {name}"] = await _said(not_followed)
            await session.mv("source.txt", "sub/moved.txt")
            await session.mv("hard.txt", "old.txt")
            seen["moved"] = await _text(session, "sub/moved.txt")
            seen["moved over"] = await _text(session, "old.txt")
            await session.mv("link", "sub/link")
            linked = await session.exec("readlink sub/link; ls")
            seen["moved link"] = linked.stdout.decode()
            seen["move of nothing"] = await _said(session.mv("missing", "sub/missing"))
            seen["move of nothing to something"] = await _said(session.mv("missing", "old.txt"))
            seen["move of a folder"] = await _said(session.mv("sub", "other"))
            seen["move to a folder"] = await _said(session.mv("old.txt", "taken"))
            seen["move to outside"] = await _said(session.mv("old.txt", "../out.txt"))
            seen["first"] = await _said(session.read_bounded(Path("digits.txt"), max_bytes=4))
            seen["more"] = await _said(session.read_bounded(Path("digits.txt"), max_bytes=40))
            seen["none"] = await _said(session.read_bounded(Path("digits.txt"), max_bytes=0))
            seen["no file"] = await _said(session.read_bounded(Path("missing"), max_bytes=4))
            for name, path in (
                ("new", "made/new.txt"),
                ("new again", "made/new.txt"),
                ("a file", "old.txt"),
                ("a dangling link", "dangling"),
                ("a folder", "taken"),
            ):
                seen[f"create {name}"] = await _said(
                    session._write_new_file(Path(path), io.BytesIO(b"new"))
                )
            seen["created"] = await _text(session, "made/new.txt")
            seen["not written over"] = await _text(session, "old.txt")
            found = await session.exec("find . -mindepth 1 | sort; ls ..| grep -c outside")
            seen["left"] = found.stdout.decode()
        return seen
