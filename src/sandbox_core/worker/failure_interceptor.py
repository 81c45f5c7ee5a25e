"""An error of a sandbox that escapes a workflow ends it, instead of its task over and over again.

Temporal's own way, `workflow_failure_exception_types`, would keep errors of the Agents SDK from the
workflow: the runner of the OpenAI Agents plugin replaces those whose cause is of such a type.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agents.exceptions import AgentsException
from agents.sandbox.errors import SandboxError
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ExecuteWorkflowInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)


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
    except (SandboxError, AgentsException) as error:
        if isinstance(error, AgentsException) and not isinstance(error.__cause__, SandboxError):
            raise  # It is none of a sandbox, and the application's to decide about.
        failure = ApplicationError(str(error), type=type(error).__name__)
        raise failure.with_traceback(error.__traceback__) from error.__cause__
