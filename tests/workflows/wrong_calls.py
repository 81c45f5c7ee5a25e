"""A workflow that calls the sandbox API wrongly, or makes another mistake."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from agents.run_config import SandboxRunConfig
from agents.sandbox import Manifest
from agents.sandbox import sandboxes as sdk
from agents.sandbox.entries import File
from agents.sandbox.manifest import Environment
from agents.sandbox.sandboxes.docker import DockerSandboxClientOptions as Options
from pydantic import BaseModel, field_validator
from temporalio import workflow
from workflows.sessions import new_session

from sandbox_core.workflow import TemporalSandboxClient as SandboxClient
from sandbox_core.workflow import temporal_sandbox_client


async def _with_client(call: Callable[[Any], Awaitable[object]]) -> None:
    await call(temporal_sandbox_client("local"))


async def _in_session(call: Callable[[Any], Awaitable[object]]) -> None:
    async with new_session("local") as session:
        # As users do; the error reaches the workflow through both.
        await asyncio.gather(asyncio.create_task(_awaited(call(session))))


class _Holder:
    def __init__(self) -> None:
        self._client: Any = temporal_sandbox_client("local")

    async def used(self) -> None:
        await self._client.create(manfest=None)


async def _awaited(awaitable: Awaitable[object]) -> object:
    return await awaitable


# So that mypy does not tell of them.
_Any: Any = temporal_sandbox_client
_Options: Any = Options
_sdk: Any = sdk
_RunConfig: Any = SandboxRunConfig
_Manifest: Any = Manifest
_File: Any = File
_Environment: Any = Environment

WRONG_CALLS: dict[str, Callable[[], Any]] = {
    "a keyword of create": partial(_with_client, lambda c: c.create(manfest=None)),
    "an argument too few": partial(_with_client, lambda c: c.resume()),
    "a method that is not there": partial(_with_client, lambda c: c.creat()),
    "a keyword of the client": lambda: _Any("local", confg={}),
    "a keyword of exec": partial(_in_session, lambda s: s.exec("true", tiemout=3)),
    "a keyword of ls": partial(_in_session, lambda s: s.ls(".", usr="x")),
    "a method of a session": partial(_in_session, lambda s: s.execute("true")),
    "a file's user": partial(_in_session, lambda s: s.write(Path("f"), io.BytesIO(), usr="x")),
    "a keyword in a call of several lines": partial(
        _in_session,
        lambda session: session.exec(
            "true",
            tiemout=3,
        ),
    ),
    "options in a call of a client": partial(
        _with_client, lambda c: c.create(options=_Options(image="debian", memory=1))
    ),
    "a client in an attribute": lambda: _Holder().used(),
    "a keyword of options": lambda: _Options(image="debian", memory=1),
    "an option of another type": lambda: _Options(image={"password": "hunter22"}),
    "options of a module": lambda: _sdk.DockerSandboxClientOptions(memory=1),
    "a keyword of the run's": lambda: _RunConfig(clent=None),
    "a positional argument of a model": lambda: _Manifest({"file": File(content=b"")}),
    "no entries": lambda: _Manifest(entries=5),
    "a file without content": lambda: _File(contents=b""),
    "an environment of numbers": lambda: _Environment(value={"A": 5}),
}


class User(BaseModel):
    """Of the application, with the name of a class of the Agents SDK."""

    name: str


class Permissions:
    """Of the application, with the name of a class of the Agents SDK."""

    def __init__(self, owner: int) -> None:
        self.owner = owner


class TemporalSandboxClient:
    """Of the application, with the name of a class of ours, as the peer's has it."""

    async def create(self) -> None:
        """Create something."""


class Client(SandboxClient):
    """Of the application, with a bug in it."""

    def of(self, name: str) -> object:
        """Look up what is not there."""
        return self._clients[name]  # type: ignore[attr-defined]  # the bug


class Variables(Environment):
    """Of the application, with a bug in its validator."""

    @field_validator("value", mode="before")
    @classmethod
    def _checked(cls, value: dict[str, str]) -> dict[str, str]:
        return dict(value, **_joined(value))  # type: ignore[arg-type]  # the bug


def _joined(value: dict[str, str]) -> str:
    return "=".join(value)


class Job(BaseModel):
    """Of the application, with a manifest in it."""

    manifest: Manifest
    count: int


_User: Any = User
_TheirClient: Any = TemporalSandboxClient
_Permissions: Any = Permissions
_Job: Any = Job
_path: Any = PurePosixPath


async def _after_use() -> None:
    async with new_session("local"):
        pass
    json.dumps(object())


OTHERS: dict[str, Callable[[], Any]] = {
    "a class of the same name": lambda: _Permissions(ownr=5),
    "a model of the same name": lambda: _User(name=5),
    "a client of the same name": lambda: _TheirClient().create(manfest=None),
    "a bug in a client": lambda: Client("local").of("name"),
    "a bug in a validator": lambda: Variables(value={"A": "hunter22"}),
    "a positional argument of another model": lambda: _User("name"),
    "a model around one of ours": lambda: _Job(manifest=Manifest(), count="many"),
    "a function": lambda: json.dumps(object()),
    "a class of Python's": lambda: _path(5),
    "no function": lambda: _path.cwdd(),
    "after the use of a sandbox": _after_use,
}


@workflow.defn
class WrongCalls:
    """Makes one mistake."""

    @workflow.run
    async def run(self, mistake: str) -> None:
        made = {**WRONG_CALLS, **OTHERS}[mistake]()
        if asyncio.iscoroutine(made):
            await made
