"""Runs short commands as local activities, which the server never sees before they have ended.

A local activity runs in the worker of the workflow task, and is recorded when the task completes.
If the worker dies before, the task is attempted again, with all that was not recorded. A command
can bear that, as it runs once under its operation id: the second request gets the recorded result,
and the workflow takes the same path. Other operations cannot. A file that is read again may have
been changed by a later command, and one that is written again loses what a later command did.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

from temporalio import exceptions, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from sandbox_core.errors import SessionNotOpen
from sandbox_core.wire import messages as m
from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.workflow.per_workflow import PerWorkflow

_KeyedT = TypeVar("_KeyedT", bound=m.KeyedRequest)

WITHIN_S = 1.0
"""How long a local activity waits for its command, in seconds; then another activity does.

While it waits, the workflow receives no signal, and nothing else that it starts is sent.
"""

_MOST_UNRECORDED = 50
"""After how many local activities the next command is an activity, which records them.

They are sent in one message, and their results are at most 32 KB each.
"""

_LONGEST_REQUEST = 8 * 1024
"""The size in bytes from which on a request is an activity's.

If a command fails, the error repeats it, up to three times. All of one workflow task are sent to
the server at once, and a message longer than gRPC's 4 MB fails the workflow.
"""

_NOT_OFFERED = "sandbox-core-not-offered"
"""With this patch, which is numbered, the worker did not offer the provider when it was asked."""


@dataclass
class _OfWorkflow:
    unrecorded: int = 0
    started: int = 0
    is_offered: bool = True
    asked: Counter[str] = field(default_factory=Counter)


_of_workflow: PerWorkflow[_OfWorkflow] = PerWorkflow(_OfWorkflow)


def note_activity() -> None:
    """Note that the workflow starts an activity, with which all before it is recorded."""
    if workflow.in_workflow():
        _of_workflow.get().unrecorded = 0


def start_local_activity(
    name: str, request: JsonObject, options: ActivityConfig
) -> workflow.ActivityHandle[object] | None:
    """Start a local activity, which is attempted once.

    Returns:
        Its handle; None if the worker that ran the workflow first does not offer the provider. No
        later command of the workflow is then a local activity.

    Raises:
        RuntimeError: This worker does not offer the provider, and the one that ran the workflow
            first did. It fails the workflow task, which another worker may attempt.
    """
    here = _of_workflow.get()
    here.started += 1
    patch = f"{_NOT_OFFERED}-{here.started}"
    is_replaying = workflow.unsafe.is_replaying()
    if is_replaying and workflow.patched(patch):
        here.is_offered = False
        return None
    try:
        handle = workflow.start_local_activity(
            name,
            args=[request],
            result_type=dict,
            start_to_close_timeout=options.get("start_to_close_timeout"),
            schedule_to_close_timeout=options.get("schedule_to_close_timeout"),
            retry_policy=RetryPolicy(maximum_attempts=1),
            cancellation_type=options.get("cancellation_type", ActivityCancellationType.TRY_CANCEL),
            summary=options.get("summary"),
            event_groups=options.get("event_groups"),
        )
    except ValueError as error:
        if is_replaying:
            raise RuntimeError(
                f"a command of this workflow was a local activity, and this worker has no activity "
                f"{name!r}: install the provider on all workers that run the workflow, and leave "
                f"out SandboxPlugin(register_activities=False), or create the client without "
                f"local_activities."
            ) from error
        workflow.patched(patch)
        here.is_offered = False
        return None
    here.unrecorded += 1
    return handle


def may_be_repeated(failure: BaseException | None, options: ActivityConfig) -> bool:
    """Return whether another activity may ask for what a local activity has failed to do."""
    policy = options.get("retry_policy") or RetryPolicy()
    if policy.maximum_attempts == 1:
        return False
    if isinstance(failure, ApplicationError):
        never = policy.non_retryable_error_types or ()
        return not failure.non_retryable and failure.type not in never
    return isinstance(failure, exceptions.TimeoutError)


def again(request: _KeyedT, not_open: SessionNotOpen) -> _KeyedT:
    """Return `request` for another worker than the one that answered that it is `not_open`."""
    if isinstance(request, m.ExecRequest) and request.within_s is not None:
        # The workflow task may have been attempted before, by a worker that is gone.
        return request.model_copy(update={"within_s": None, "repeated": True})
    if not_open.has_earlier_attempt:
        return request.model_copy(update={"repeated": True})
    return request


class LocalCommands:
    """Decides which commands of one session are local activities first."""

    def __init__(self) -> None:
        self._helped: dict[str | None, m.SessionRef] = {}
        self._repeatable: dict[str | None, int] = {}

    def note(self, session: m.SessionRef, user: str | None, at_most_once: str | None) -> None:
        """Note how a command of `user` ran."""
        if at_most_once is None:
            self._helped[user] = session
            self._repeatable[user] = _MOST_UNRECORDED
        else:
            self.forget(user)

    def forget(self, user: str | None) -> None:
        """Have the next command of `user` be an activity, which says how it ran."""
        self._helped.pop(user, None)

    def suits(self, session: m.SessionRef, user: str | None) -> bool:
        """Return whether the next command of `user` may be a local activity.

        It may if the last one ran under the helper: without it, nothing in the sandbox can tell
        whether a command ran before.
        """
        here = _of_workflow.get()
        return (
            self._helped.get(user) == session
            and here.unrecorded < _MOST_UNRECORDED
            and here.is_offered
        )

    def may_have_run(self, user: str | None) -> bool:
        """Return whether the next command of `user`, an activity, may have been a local one.

        It may have been before the workflow task was attempted again. Where the helper cannot run,
        on another worker, nothing in the sandbox can tell. So this holds for as many commands after
        the last one under the helper as there can be unrecorded ones.
        """
        left = self._repeatable.get(user, 0)
        self._repeatable[user] = max(left - 1, 0)
        return left > 0


def is_short(request: m.ExecRequest) -> bool:
    """Return whether a local activity may take the request."""
    return len(json.dumps(request.dump())) <= _LONGEST_REQUEST


def with_stable_id(request: m.ExecRequest) -> m.ExecRequest:
    """Return the request with an operation id for a command that may be a local activity.

    If the workflow task is attempted again, results may come in another order, so that the next
    random number may be another branch's. This id depends on the command, and on how often the
    workflow has run it in this session. A reset of the workflow changes its seed.
    """
    session = request.session.model_copy(update={"epoch": 0})
    same = _digest(request.model_copy(update={"operation_id": "", "session": session}).dump())
    asked = _of_workflow.get().asked
    asked[same] += 1
    identity = _digest([workflow.random_seed(), same, asked[same]])
    return request.model_copy(update={"operation_id": identity})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
