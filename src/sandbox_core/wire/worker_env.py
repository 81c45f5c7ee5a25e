"""`WorkerEnv`: an environment variable whose value stays on the worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from agents.sandbox.manifest import EnvValue
from pydantic import ConfigDict
from temporalio import workflow

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire.strict import Explained

_reader: ContextVar[Callable[[str], str] | None] = ContextVar("sandbox_core_reader", default=None)


@contextmanager
def reading_worker_env(read: Callable[[str], str]) -> Iterator[None]:
    """Read variables of the worker's environment with `read`, within the context."""
    token = _reader.set(read)
    try:
        yield
    finally:
        _reader.reset(token)


def read_worker_env(name: str, what: str) -> str:
    """Return a variable of the worker's environment.

    Args:
        name: The variable's name.
        what: What needs it, the start of a sentence.

    Raises:
        InvalidRequest: The worker does not allow or have the variable, or this is not an activity.
    """
    read = _reader.get()
    if read is None or workflow.in_workflow():
        raise InvalidRequest(f"{what} can be read only by a sandbox operation on a worker.")
    return read(name)


class WorkerEnv(Explained, EnvValue):
    """An environment variable of the sandbox, with its value taken from the worker's environment.

    Use it in a manifest's environment instead of the value::

        Manifest(environment=Environment(value={"GITHUB_TOKEN": WorkerEnv(name="GITHUB_TOKEN")}))

    Only the name is sent. The worker reads the value, if ``SandboxPlugin(worker_env=[...])`` allows
    the name, and redacts it in command output, errors and its log. Values with fewer than six
    characters are refused: they cannot be told from other text.
    """

    type: Literal["sandbox_core.worker_env"] = "sandbox_core.worker_env"
    name: str
    """The name of the variable in the worker's environment."""

    model_config = ConfigDict(extra="forbid")

    async def resolve(self) -> str:
        """Return the value; works only in an activity on a worker.

        Raises:
            InvalidRequest: The variable is not allowed, not set or too short, or this is not an
                activity.
        """
        return read_worker_env(self.name, f"WorkerEnv(name={self.name!r})")
