"""The workflow that a Temporal Schedule starts to reap sandboxes: `sandbox-core reap --every`.

It belongs to neither half: the workers' plugin registers it, and the command schedules it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy, VersioningBehavior
from temporalio.exceptions import ActivityError, ApplicationError

from sandbox_core.errors import OrphansLeft
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages import Message, ReapRequest, ReapResponse
from sandbox_core.wire.naming import NOT_REGISTERED, activity_name, is_not_registered
from sandbox_core.wire.summaries import summarize

REAP_WORKFLOW = "sandbox-core_reap"

_PASS_TIMEOUT = timedelta(hours=1)
_HEARTBEAT_TIMEOUT = timedelta(seconds=30)
_RETRY_POLICY = RetryPolicy(maximum_attempts=5, non_retryable_error_types=[NOT_REGISTERED])
_NAMED = 20


class ReapProviders(Message):
    """The input of the workflow: what to do, and with which providers."""

    providers: tuple[str, ...]
    reap: ReapRequest


class ReapedProviders(Message):
    """Its result: the response of each provider, by name."""

    answers: Mapping[str, ReapResponse]


@workflow.defn(name=REAP_WORKFLOW)
class ReapWorkflow:
    """Reaps the sandboxes of several providers concurrently and independently."""

    # Plain JSON, as everywhere: the worker may have any data converter, and the command that starts
    # the workflow has Temporal's default one.
    @workflow.run
    async def run(self, request: dict[str, Any]) -> JsonObject:
        """Ask each provider once.

        Raises:
            OrphansLeft: A provider could not be asked, or a sandbox could not be deleted.
        """
        asked = ReapProviders.model_validate(request)
        results = await asyncio.gather(*(self._ask(name, asked.reap) for name in asked.providers))
        answers: dict[str, ReapResponse] = {}
        problems: list[str] = []
        for name, result in zip(asked.providers, results, strict=True):
            if isinstance(result, str):
                problems.append(f"{name} could not be asked: {result}")
            else:
                answers[name] = result
                problems += problems_of(name, result)
        if problems:
            raise OrphansLeft(". ".join(problems))
        return ReapedProviders(answers=answers).dump()

    async def _ask(self, provider: str, request: ReapRequest) -> ReapResponse | str:
        try:
            answer = await workflow.execute_activity(
                activity_name(provider, ops.REAP.name),
                request.dump(),
                result_type=dict,
                schedule_to_close_timeout=_PASS_TIMEOUT,
                heartbeat_timeout=_HEARTBEAT_TIMEOUT,
                retry_policy=_RETRY_POLICY,
                summary=summarize(f"{ops.REAP.name}: {request.summary()}"),
            )
        except ActivityError as error:
            return _reason(error)
        return ReapResponse.model_validate(answer)


@workflow.defn(name=REAP_WORKFLOW, versioning_behavior=VersioningBehavior.PINNED)
class VersionedReapWorkflow(ReapWorkflow):
    """The same for versioned workers, which require a versioning behaviour; others refuse one."""

    @workflow.run
    async def run(self, request: dict[str, Any]) -> JsonObject:
        """Run the workflow."""
        return await super().run(request)


def problems_of(provider: str, answer: ReapResponse) -> list[str]:
    """Return one sentence per problem that a provider reported."""
    failed = [found for found in answer.sandboxes if found.outcome == "failed"]
    if not failed:
        return []
    named = [f"{found.sandbox_id} ({found.reason})" for found in failed[:_NAMED]]
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    return [f"{provider} sandboxes that could not be deleted: {', '.join(named)}{more}"]


def _reason(error: ActivityError) -> str:
    cause = error.cause
    if isinstance(cause, ApplicationError) and is_not_registered(cause):
        return (
            f"the worker of task queue {workflow.info().task_queue!r} that was asked does not "
            f"have it"
        )
    return str(cause or error)
