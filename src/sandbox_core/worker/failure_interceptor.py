"""What escapes a workflow that uses a sandbox ends it, not its task over and over again.

That is an error of a sandbox, and what the Agents SDK raises where a model makes a mistake:
arguments that are no JSON or no text, a tool that does not exist, too many turns. Each would be the
same the next time. So does a wrong call of the sandbox API, which nobody would see otherwise.

Temporal's own way, `workflow_failure_exception_types`, would keep errors of the Agents SDK from the
workflow: the runner of the OpenAI Agents plugin replaces those whose cause is of such a type.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import agents
from agents.exceptions import AgentsException, UserError
from agents.sandbox.errors import SandboxError
from pydantic import ValidationError
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ExecuteWorkflowInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from sandbox_core.wire.sandbox_workflows import uses_sandbox
from sandbox_core.worker.wrong_calls import wrong_call


class FailuresInterceptor(Interceptor):
    """Fails workflows, and their handlers, with the errors of sandboxes."""

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002 - Temporal's name
    ) -> type[WorkflowInboundInterceptor]:
        """Return what does it in a workflow."""
        return _WorkflowFailures


class _WorkflowFailures(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002, ANN401 - Temporal's signature
        with _sandbox_errors_as_failures():
            return await super().execute_workflow(input)

    async def handle_signal(self, input: HandleSignalInput) -> None:  # noqa: A002 - Temporal's signature
        with _sandbox_errors_as_failures():
            await super().handle_signal(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:  # noqa: A002, ANN401 - Temporal's signature
        with _sandbox_errors_as_failures():
            return await super().handle_update_handler(input)


@contextmanager
def _sandbox_errors_as_failures() -> Iterator[None]:
    try:
        yield
    except (TypeError, AttributeError, ValidationError) as error:
        wrong = wrong_call(error)
        if wrong is None and not (isinstance(error, ValidationError) and _ends_workflow(error)):
            raise
        failure = ApplicationError(wrong or str(error), type=type(error).__name__)
        raise failure.with_traceback(error.__traceback__) from error.__cause__
    except (SandboxError, AgentsException, UnicodeError) as error:
        if not _ends_workflow(error):
            raise
        failure = ApplicationError(str(error), type=type(error).__name__)
        raise failure.with_traceback(error.__traceback__) from error.__cause__


def _ends_workflow(error: Exception) -> bool:
    if isinstance(error, SandboxError) or isinstance(error.__cause__, SandboxError):
        return True
    if not uses_sandbox():
        return False
    # What is wrong with the code of a workflow is mended by deploying it anew, as in Temporal.
    if isinstance(error, AgentsException):
        return not (isinstance(error, UserError) and error.__cause__ is None)
    frames = traceback.walk_tb(error.__traceback__)
    packages = (str(frame.f_globals.get("__package__")) for frame, _ in frames)
    return any(package.partition(".")[0] == agents.__name__ for package in packages)
