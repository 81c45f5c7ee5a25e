"""`WorkerEnv`: a variable of a manifest's environment whose value stays on the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeVar

from agents.sandbox.manifest import EnvValue
from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from temporalio import workflow

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire.strict import mistakes

_ModelT = TypeVar("_ModelT")
_reader: ContextVar[Callable[[str], str] | None] = ContextVar("sandbox_core_reader", default=None)


@contextmanager
def reading_worker_env(read: Callable[[str], str]) -> Iterator[None]:
    """Let variables of the worker's environment be read with `read` for the duration."""
    token = _reader.set(read)
    try:
        yield
    finally:
        _reader.reset(token)


def read_worker_env(name: str, what: str) -> str:
    """Return a variable of the worker's environment.

    Args:
        name: The variable's name.
        what: What it is read for, the start of a sentence.

    Raises:
        InvalidRequest: The worker does not allow it or has no such secret, or this is no activity.
    """
    read = _reader.get()
    if read is None or workflow.in_workflow():
        raise InvalidRequest(f"{what} can be read only by a sandbox operation on a worker.")
    return read(name)


class WorkerEnv(EnvValue):
    """An environment variable of the sandbox with the value that the worker's own has.

    Put it into a manifest's environment in place of the value::

        Manifest(environment=Environment(value={"GITHUB_TOKEN": WorkerEnv(name="GITHUB_TOKEN")}))

    Only the name travels. The value is read on the worker, if ``SandboxPlugin(worker_env=[...])``
    allows the name, and is taken out of what commands write, of errors and of the worker's log. It
    has six characters or more: fewer could not be told from other text.
    """

    type: Literal["sandbox_core.worker_env"] = "sandbox_core.worker_env"
    name: str
    """The variable of the worker's environment."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: object, validate: ModelWrapValidatorHandler[_ModelT]) -> _ModelT:
        try:
            return validate(value)
        except ValidationError as error:
            raise InvalidRequest(mistakes(cls, error)) from None

    async def resolve(self) -> str:
        """Return the value; only an activity on a worker can.

        Raises:
            InvalidRequest: It is not allowed, is not set, is too short, or is asked for anywhere
                else.
        """
        return read_worker_env(self.name, f"WorkerEnv({self.name!r})")
