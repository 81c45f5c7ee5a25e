"""Fails workflows that use sandboxes, instead of retrying their task, with errors that would recur.

These are sandbox errors, wrong calls of the sandbox API, which nobody would notice otherwise, and
the Agents SDK's errors for a model's mistakes: arguments that are not JSON or not text, a tool that
does not exist, too many turns.

Temporal's own setting, `workflow_failure_exception_types`, would hide the Agents SDK's errors from
the workflow: the OpenAI Agents plugin's runner replaces errors whose cause has such a type.
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
    """Fails workflows, and their handlers, with sandbox errors."""

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002 - Temporal's name
    ) -> type[WorkflowInboundInterceptor]:
        """Return the interceptor for workflows."""
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
    # A bug in a workflow is fixed by a new deployment, as usual with Temporal.
    if isinstance(error, AgentsException):
        return not (isinstance(error, UserError) and error.__cause__ is None)
    frames = traceback.walk_tb(error.__traceback__)
    packages = (str(frame.f_globals.get("__package__")) for frame, _ in frames)
    return any(package.partition(".")[0] == agents.__name__ for package in packages)
