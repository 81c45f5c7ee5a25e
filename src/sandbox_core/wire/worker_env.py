"""`WorkerEnv`: a variable of a manifest's environment whose value stays on the worker."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, TypeVar, cast

from agents.sandbox.manifest import EnvValue
from pydantic import BaseModel
from temporalio import workflow

from sandbox_core.errors import InvalidRequest

_REDACTED = b"***"
_AnswerT = TypeVar("_AnswerT")


@dataclass(frozen=True, kw_only=True)
class Resolver:
    """Reads variables of the worker's environment, and remembers which values it has handed out."""

    allowed: frozenset[str]
    resolved: set[bytes] = field(default_factory=set)

    def resolve(self, name: str) -> str:
        """Return the value of an allowed variable.

        Raises:
            InvalidRequest: The variable is not allowed on this worker, or is not set.
        """
        if name not in self.allowed:
            raise InvalidRequest(
                f"WorkerEnv({name!r}) is not allowed on this worker: name it in "
                f"SandboxPlugin(worker_env=[{name!r}])."
            )
        value = os.environ.get(name)
        if not value:
            raise InvalidRequest(f"WorkerEnv({name!r}) is not set in this worker's environment.")
        self.resolved.add(value.encode())
        return value

    def redact(self, answer: _AnswerT) -> _AnswerT:
        """Return what an operation answers without the values that were handed out."""
        if not self.resolved:
            return answer
        return cast("_AnswerT", self._redacted(answer))

    def _redacted(self, value: object) -> object:
        if isinstance(value, bytes):
            for secret in sorted(self.resolved, key=len, reverse=True):
                value = value.replace(secret, _REDACTED)
            return value
        if isinstance(value, str):
            # Bytes that are no text stay what they are on the way through bytes and back.
            redacted = cast("bytes", self._redacted(value.encode("utf-8", "surrogatepass")))
            return redacted.decode("utf-8", "surrogatepass")
        if isinstance(value, BaseModel):
            fields = {
                name: self._redacted(getattr(value, name)) for name in type(value).model_fields
            }
            return value.model_copy(update=fields)
        if isinstance(value, dict):
            return {key: self._redacted(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._redacted(item) for item in value)
        return value


_resolver: ContextVar[Resolver | None] = ContextVar("sandbox_core_resolver", default=None)


@contextmanager
def resolving(allowed: Collection[str]) -> Iterator[Resolver]:
    """Let the `WorkerEnv` values of these names be read for the duration."""
    resolver = Resolver(allowed=frozenset(allowed))
    token = _resolver.set(resolver)
    try:
        yield resolver
    finally:
        _resolver.reset(token)


def current_resolver(what: str) -> Resolver:
    """Return the resolver of the current activity, to read `what`.

    Raises:
        InvalidRequest: This is no activity of a worker.
    """
    resolver = _resolver.get()
    if resolver is None or workflow.in_workflow():
        raise InvalidRequest(f"{what} can be read only by a sandbox operation on a worker.")
    return resolver


class WorkerEnv(EnvValue):
    """An environment variable of the sandbox with the value that the worker's own has.

    Put it into a manifest's environment in place of the value::

        Manifest(environment=Environment(value={"GITHUB_TOKEN": WorkerEnv(name="GITHUB_TOKEN")}))

    Only the name travels. The value is read on the worker, whenever a command is run, if
    ``SandboxPlugin(worker_env=[...])`` allows the name; it is taken out of what commands write.
    """

    type: Literal["sandbox_core.worker_env"] = "sandbox_core.worker_env"
    name: str
    """The variable of the worker's environment."""

    async def resolve(self) -> str:
        """Return the value; only an activity on a worker can.

        Raises:
            InvalidRequest: It is not allowed, is not set, or is asked for anywhere else.
        """
        return current_resolver(f"WorkerEnv({self.name!r})").resolve(self.name)
