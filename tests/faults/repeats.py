"""Every operation that is declared repeatable, repeated: the second attempt ends as the first."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
from agents.sandbox import Manifest
from agents.sandbox.entries import File
from support import archive
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from sandbox_core.providers.registry import Provider
from sandbox_core.wire.agents_models import apply_delta, dump_entry, dump_manifest
from sandbox_core.wire.naming import split_activity_name
from sandbox_core.wire.operations import Effect, operations
from sandbox_core.worker.activities import make_activities
from sandbox_core.worker.call import Call
from sandbox_core.worker.sessions.pool import Client, SessionPool

_REPEATED = (Effect.READ, Effect.IDEMPOTENT)

_NOT_HERE = {
    "reap",  # Of all sandboxes of the namespace.
    "list_skills",  # Of a folder of the worker's, with tests of their own.
    "load_skill",
    "resolve_exposed_port",  # Not every backend has ports.
    "ping",
    "pty_resize",  # Not every backend has terminals; a second attempt sets the same size.
}


class Repeating:
    """One session whose operations are each attempted twice."""

    def __init__(self, provider: Provider, client: Client) -> None:
        call = Call(provider=provider, client=client, pool=SessionPool())
        made = make_activities(provider.name, lambda: call)
        self._activities: Mapping[str, Callable[..., Any]] = {
            _operation_of(each): each for each in made
        }
        self.done: set[str] = set()
        self._session: object = None

    async def open(self) -> None:
        """Create the session, by a create that is attempted twice."""
        manifest = dump_manifest(Manifest(entries={"kept.txt": File(content=b"kept")}))
        request = {"create_key": uuid.uuid4().hex, "epoch": 1, "manifest": manifest}
        first, second = [await self._attempt("create_session", n, request) for n in (1, 2)]
        assert first == second
        self._session = first["session"]
        self.state = apply_delta({"manifest": manifest}, first["state_delta"])

    async def twice(self, operation: str, body: bytes | None = None, **request: Any) -> Any:  # noqa: ANN401 - a JSON object
        """Do an operation, as if the answer of its first attempt was lost; return the second's."""
        self.done.add(operation)
        asked = {"session": self._session, **request}
        first = await self._attempt(operation, 1, asked, body)
        second = await self._attempt(operation, 2, asked, body)
        if operation not in ("stop", "start", "shutdown", "persist_workspace"):
            assert first == second
        return second

    async def _attempt(
        self, operation: str, number: int, request: Mapping[str, Any], body: bytes | None = None
    ) -> Any:  # noqa: ANN401 - a JSON object
        environment = ActivityEnvironment()
        environment.info = dataclasses.replace(environment.info, attempt=number)
        arguments = [request] if body is None else [request, body]
        return await environment.run(self._activities[operation], *arguments)


def _operation_of(function: Callable[..., Any]) -> str:
    definition = activity._Definition.must_from_callable(function)
    found = split_activity_name(cast("str", definition.name))
    assert found is not None
    return found[1]


class RepeatPromises:
    """What a backend promises of operations whose answer was lost."""

    @pytest.fixture
    def repeating(self, backend: Any) -> Repeating:  # noqa: ANN401 - each plugin's own
        return Repeating(backend.provider, backend.client)

    async def test_a_second_attempt_ends_as_the_first(self, repeating: Repeating) -> None:
        """Of every operation that reads, or that is declared idempotent."""
        await repeating.open()
        twice = repeating.twice
        await twice("start")
        await twice("running")
        await twice("mkdir", path="plain")
        await twice("mkdir", path="deep/er", parents=True)
        await twice("write", b"text", path="plain/file.txt")
        await twice(
            "extract", archive("in.txt", b"in"), path="packed.tar", compression_scheme="tar"
        )
        assert b"text" == await twice("read", path="plain/file.txt")
        assert 1 == len((await twice("ls", path="plain"))["entries"])
        await twice("validate_path_access", path="plain")
        await twice("write", b"new", path="plain/new.txt", new=True)
        await twice("move", source="plain/new.txt", destination="plain/moved.txt")
        await twice("same_file", left="plain/moved.txt", right="plain/file.txt")
        await twice("apply_manifest")
        entry = dump_entry(File(content=b"placed"))
        root = repeating.state["manifest"]["root"]  # type: ignore[index,call-overload]  # a JSON object
        await twice("apply_entries", entries=[{"path": f"{root}/placed.txt", "entry": entry}])
        saved = await twice("persist_workspace")
        await twice("rm", path="plain/file.txt")
        await twice("rm", path="deep", recursive=True)
        await twice("hydrate_workspace", saved)
        assert b"text" == await twice("read", path="plain/file.txt")
        await twice("pty_terminate_all")
        await twice("stop")
        await twice("shutdown")
        await twice("delete_session", state=repeating.state)

        repeated = {row.name for row in operations() if row.effect in _REPEATED}
        assert repeated - repeating.done - _NOT_HERE <= {"resume_session"}
