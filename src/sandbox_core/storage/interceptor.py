"""Gives workflows and activities the limits of the worker that runs them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    HandleQueryInput,
    HandleSignalInput,
    HandleUpdateInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from sandbox_core.wire.limits import Limits, set_limits


class LimitsInterceptor(Interceptor):
    """Sets the current limits in activities, workflows, and handlers, which run concurrently."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - Temporal's name
        """Set the limits for an activity."""
        return _ActivityLimits(next, self._limits)

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002 - Temporal's name
    ) -> type[WorkflowInboundInterceptor]:
        """Set the limits for a workflow and its handlers."""
        return type("_Bound", (_WorkflowLimits,), {"limits": self._limits})


class _ActivityLimits(ActivityInboundInterceptor):
    def __init__(
        self,
        next: ActivityInboundInterceptor,  # noqa: A002 - Temporal's name
        limits: Limits,
    ) -> None:
        super().__init__(next)
        self._limits = limits

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002, ANN401 - Temporal's signature
        set_limits(self._limits)
        return await super().execute_activity(input)


class _WorkflowLimits(WorkflowInboundInterceptor):
    limits: Limits

    def __init__(self, next: WorkflowInboundInterceptor) -> None:  # noqa: A002 - Temporal's name
        super().__init__(next)
        # Each run of a workflow has its own interceptor.
        self._limits = replace(self.limits, requests=itertools.count(1))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002, ANN401 - Temporal's signature
        set_limits(self._limits)
        return await super().execute_workflow(input)

    async def handle_signal(self, input: HandleSignalInput) -> None:  # noqa: A002 - Temporal's signature
        set_limits(self._limits)
        await super().handle_signal(input)

    async def handle_query(self, input: HandleQueryInput) -> Any:  # noqa: A002, ANN401 - Temporal's signature
        set_limits(self._limits)
        return await super().handle_query(input)

    async def handle_update_handler(self, input: HandleUpdateInput) -> Any:  # noqa: A002, ANN401 - Temporal's signature
        set_limits(self._limits)
        return await super().handle_update_handler(input)
