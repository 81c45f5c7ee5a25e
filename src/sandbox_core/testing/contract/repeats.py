"""Checks that a second attempt at a repeatable operation ends like the first."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, cast

from agents.sandbox import Manifest
from agents.sandbox.entries import File
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from sandbox_core.testing.contract.files import tar_of
from sandbox_core.testing.contract.model import check, expect_equal
from sandbox_core.testing.contract.subject import Subject
from sandbox_core.wire.agents_models import apply_delta, dump_entry, dump_manifest, dump_options
from sandbox_core.wire.naming import split_activity_name
from sandbox_core.wire.operations import Effect, operations
from sandbox_core.worker.activities import make_activities
from sandbox_core.worker.call import Call
from sandbox_core.worker.sessions.pool import SessionPool

_REPEATED = (Effect.READ, Effect.IDEMPOTENT)

_NOT_HERE = {
    "reap",  # It concerns all sandboxes of the namespace.
    "inspect",  # It reads the worker's memory, of which others may change what it answers.
    "list_skills",  # It reads a folder of the worker's.
    "load_skill",
    "resolve_exposed_port",  # Not every backend has ports.
    "resume_session",  # It has its own check, with another client.
    "ping",
    "pty_resize",  # Not every backend has terminals; a second attempt sets the same size.
}

_ANSWERS_DIFFER = ("stop", "start", "shutdown", "persist_workspace")


class _Repeating:
    """A session that attempts each operation twice."""

    def __init__(self, subject: Subject) -> None:
        call = Call(provider=subject.provider, client=subject.client, pool=SessionPool())
        made = make_activities(subject.provider.name, lambda: call)
        self._activities: Mapping[str, Callable[..., Any]] = {
            _operation_of(each): each for each in made
        }
        self.done: set[str] = set()
        self.state: dict[str, Any] = {}
        self._session: object = None

    async def open(self, subject: Subject) -> None:
        """Create the session, with two attempts at the create."""
        manifest = dump_manifest(Manifest(entries={"kept.txt": File(content=b"kept")}))
        request = {"create_key": uuid.uuid4().hex, "epoch": 1, "manifest": manifest}
        if subject.backend.options is not None:
            request["options"] = dump_options(subject.backend.options)
        first, second = [await self._attempt("create_session", n, request) for n in (1, 2)]
        expect_equal(first, second, "what a create answers when it is attempted again")
        self._session = first["session"]
        self.state = cast("Any", apply_delta({"manifest": manifest}, first["state_delta"]))

    async def __call__(self, operation: str, body: bytes | None = None, **request: object) -> Any:  # noqa: ANN401 - a JSON object
        """Do an operation as if the first attempt's answer was lost; return the second's."""
        self.done.add(operation)
        asked = {"session": self._session, **request}
        first = await self._attempt(operation, 1, asked, body)
        second = await self._attempt(operation, 2, asked, body)
        if operation not in _ANSWERS_DIFFER:
            expect_equal(first, second, f"what {operation} answers when it is attempted again")
        return second

    async def _attempt(
        self, operation: str, number: int, request: Mapping[str, Any], body: bytes | None = None
    ) -> Any:  # noqa: ANN401 - a JSON object
        environment = ActivityEnvironment()
        # The default timeout is a second.
        environment.info = dataclasses.replace(
            environment.info, attempt=number, start_to_close_timeout=timedelta(minutes=5)
        )
        arguments = [request] if body is None else [request, body]
        return await environment.run(self._activities[operation], *arguments)


def _operation_of(function: Callable[..., Any]) -> str:
    definition = activity._Definition.must_from_callable(function)
    found = split_activity_name(cast("str", definition.name))
    assert found is not None
    return found[1]


@check("durable", cost="the retry of an operation whose answer was lost fails")
async def a_second_attempt_ends_as_the_first(subject: Subject) -> None:
    """A repeated read or idempotent operation ends like the first."""
    twice = _Repeating(subject)
    await twice.open(subject)
    try:
        await _do_everything(twice)
    finally:
        await twice("delete_session", state=twice.state)
    declared = {row.name for row in operations() if row.effect in _REPEATED}
    expect_equal(set(), declared - twice.done - _NOT_HERE, "operations that were not repeated")


async def _do_everything(twice: _Repeating) -> None:
    await twice("start")
    await twice("running")
    await twice("mkdir", path="plain")
    await twice("mkdir", path="deep/er", parents=True)
    await twice("write", b"text", path="plain/file.txt")
    await twice("extract", tar_of(("in.txt", b"in")), path="packed.tar", compression_scheme="tar")
    expect_equal(b"text", await twice("read", path="plain/file.txt"), "what was written")
    expect_equal(1, len((await twice("ls", path="plain"))["entries"]), "files of a folder")
    await twice("validate_path_access", path="plain")
    await twice("write", b"new", path="plain/new.txt", new=True)
    await twice("move", source="plain/new.txt", destination="plain/moved.txt")
    await twice("same_file", left="plain/moved.txt", right="plain/file.txt")
    await twice("apply_manifest")
    entry = dump_entry(File(content=b"placed"))
    root = twice.state["manifest"]["root"]
    await twice("apply_entries", entries=[{"path": f"{root}/placed.txt", "entry": entry}])
    saved = await twice("persist_workspace")
    await twice("rm", path="plain/file.txt")
    await twice("rm", path="deep", recursive=True)
    await twice("hydrate_workspace", saved)
    expect_equal(b"text", await twice("read", path="plain/file.txt"), "what was saved")
    await twice("pty_terminate_all")
    await twice("stop")
    await twice("shutdown")
