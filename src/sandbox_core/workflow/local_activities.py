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


@dataclass
class _Unrecorded:
    commands: int = 0
    asked: Counter[str] = field(default_factory=Counter)


_unrecorded: PerWorkflow[_Unrecorded] = PerWorkflow(_Unrecorded)


def note_activity() -> None:
    """Note that the workflow starts an activity, with which all before it is recorded."""
    if workflow.in_workflow():
        _unrecorded.get().commands = 0


def start_local_activity(
    name: str, request: JsonObject, options: ActivityConfig
) -> workflow.ActivityHandle[object]:
    """Start a local activity, which is attempted once.

    Raises:
        RuntimeError: This worker does not offer the provider. It fails the workflow task, which
            another worker may attempt.
    """
    _unrecorded.get().commands += 1
    try:
        return workflow.start_local_activity(
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
        raise RuntimeError(
            f"local_activities=True requires the provider on the workers that run the workflow, "
            f"and this one has no activity {name!r}: install the provider here and leave out "
            f"SandboxPlugin(register_activities=False), or create the client without "
            f"local_activities."
        ) from error


def may_be_repeated(failure: BaseException | None) -> bool:
    """Return whether another activity may ask for what a local activity has failed to do."""
    if isinstance(failure, ApplicationError):
        return not failure.non_retryable
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
        return self._helped.get(user) == session and _unrecorded.get().commands < _MOST_UNRECORDED

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
    asked = _unrecorded.get().asked
    asked[same] += 1
    identity = _digest([workflow.random_seed(), same, asked[same]])
    return request.model_copy(update={"operation_id": identity})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
