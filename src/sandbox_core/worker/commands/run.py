"""Runs commands to completion: exactly once, even if the worker that asked dies.

A command runs in the sandbox under the helper, keyed by the operation id of the request. A second
request with the same id, from any worker, waits for the running command or gets the recorded
result. Where the helper cannot run, the command is the backend's own call, at most once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from agents.sandbox.errors import ExecFailureError, ExecTimeoutError, ExecTransportError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.providers.registry import Provider
from sandbox_core.wire import messages as m
from sandbox_core.wire.limits import current_limits
from sandbox_core.wire.summaries import summarize
from sandbox_core.worker.commands import retention
from sandbox_core.worker.commands.doubt import hides_outcome, note_asked
from sandbox_core.worker.commands.ending import Overdue, TimeLimit, end_command, until
from sandbox_core.worker.commands.helper import Helper, helper_for, note_refusal
from sandbox_core.worker.commands.install import Unusable
from sandbox_core.worker.commands.length import check_length, too_long
from sandbox_core.worker.commands.live import STREAMS, publishing
from sandbox_core.worker.commands.output import cut_output, kept_output
from sandbox_core.worker.commands.plain import at_most_once, is_repeated, note_plain
from sandbox_core.worker.commands.protocol import (
    Answer,
    Field,
    NotAnAnswer,
    RecordsRemoved,
)
from sandbox_core.worker.sdk_session import backend_session, prepared_command, reported

BUSY_S = 0.05
"""How long to wait before asking again about a command whose keeper is not ready to answer."""

BACKEND_SAYS = ("missing", "denied", "nocwd", "exec")
"""Reasons why nothing ran for which the backend has an error of its own."""


class Unfinished(Exception):
    """A local activity cannot have the command's result; another activity can ask for it.

    `started` means that the command may have begun.
    """

    def __init__(self, *, started: bool) -> None:
        super().__init__()
        self.started = started


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that has ended."""

    result: ExecResult
    published: Mapping[str, int] = field(default_factory=dict)
    """By stream, the offset up to which its output is published."""


async def run(provider: Provider, session: SandboxSession, request: m.ExecRequest) -> Ran:
    """Run the command of `request` once, or attach to it if it was started before.

    Output beyond `current_limits` is cut in the middle.

    Raises:
        InvalidRequest: It is too long for Linux; it did not run.
        ExecTimeoutError: It exceeded its timeout or, if the request has none, the activity's,
            counted from the command's start; it was ended. With a timeout of 0 it is not started.
        OutcomeUnknown: It was started, and vanished with the processes of its sandbox.
        SandboxError: The backend failed; the same request may be made again.
        Unfinished: The request has `within_s`, in which the helper did not return a result.
    """
    # Sinks and spans show the command, not the helper around it.
    return await reported(
        session,
        "exec",
        partial(_run_once, provider, session, request),
        start_data={
            "command": list(request.command),
            "timeout_s": request.timeout,
            "shell": shell_of(request),
            "user": request.user,
        },
        ok=lambda ran: ran.result.ok(),
        outputs=lambda ran: (ran.result.stdout, ran.result.stderr),
    )


async def _run_once(provider: Provider, session: SandboxSession, request: m.ExecRequest) -> Ran:
    argv = argv_of(session, request)
    check_length(provider, argv)
    limit = TimeLimit.of(request.timeout)
    if limit is not None and request.timeout == 0:
        raise limit.error(argv, request.timeout)  # Backends would start it, and kill it.
    try:
        helper = await helper_for(provider, session, request.user, about=argv)
        described = await helper.command(argv)
    except Unusable as error:
        if request.within_s is not None:
            raise Unfinished(started=True) from error  # A record could not be looked for.
        if not error.lasting:
            note_refusal(session, request.user, str(error))
            await note_plain(request.command)
        return Ran(result=await _plain(session, request, repeated=is_repeated(request)))
    key: Field = ("key", request.operation_id)
    async with publishing(helper, request, key, tuple(STREAMS)) as publication:
        result = await _under_helper(helper, session, request, argv, described)
    retention.after_command(helper, session, request.user, result)
    return Ran(result=result, published=publication.published)


async def _plain(
    session: SandboxSession, request: m.ExecRequest, *, repeated: bool = False
) -> ExecResult:
    result = await at_most_once(
        request.summary(),
        lambda: backend_session(session).exec(
            *request.command, timeout=request.timeout, shell=shell_of(request), user=request.user
        ),
        repeated=repeated,
        command=request.command,
    )
    limit = current_limits().output
    return ExecResult(
        stdout=cut_output(result.stdout, limit),
        stderr=cut_output(result.stderr, limit),
        exit_code=result.exit_code,
    )


async def _under_helper(
    helper: Helper,
    session: SandboxSession,
    request: m.ExecRequest,
    argv: Sequence[str],
    described: Sequence[Field],
) -> ExecResult:
    key = request.operation_id
    limit, allowed = TimeLimit.of(request.timeout), current_limits().output
    patience = _Patience(request.within_s)
    fields: list[Field] = [
        ("key", key),
        ("wait", milliseconds(patience.at_most(helper.attached_s))),
        ("out_max", allowed),
        ("err_max", allowed),
        *([] if limit is None else [("timeout", max(1, milliseconds(limit.seconds)))]),
        *described,
    ]
    started, may_run = is_repeated(request), request.repeated
    note_asked()
    while True:
        try:
            answer = await until(
                limit,
                helper.ask("run", fields, about=argv),
                end=lambda reason: end_command(helper, key, reason),
            )
        except Overdue as overdue:
            if overdue.ended and limit is not None:
                raise limit.error(argv, request.timeout) from None
            continue  # The command exited in the meantime: its result is recorded.
        except ExecTimeoutError:  # The backend's own limit.
            await end_command(helper, key, "timeout")
            raise
        except NotAnAnswer as silence:
            raise await unanswered(helper, session, request, argv, silence) from None
        except ExecFailureError as error:
            if await hides_outcome(error, may_run=may_run):
                patience.end(started=True)
                raise failed_unanswered(session, request, error) from error
            raise
        if not answer.is_refusal:
            note_refusal(session, request.user, None)
        if answer.word == "exited":
            return ExecResult(
                stdout=kept_output(answer, "out", allowed),
                stderr=kept_output(answer, "err", allowed),
                exit_code=helper.exit_code(answer),
            )
        if answer.word == "ended" and answer.text("reason") == "timeout" and limit is not None:
            raise limit.error(argv, request.timeout)
        if answer.is_too_long:
            raise too_long(argv)
        if answer.word == "notrun" and answer.text("why") in BACKEND_SAYS:
            patience.end(started=False)
            return await _plain(session, request)
        if answer.is_for_want_of_room:
            patience.end(started=started)
            note_refusal(session, request.user, answer.text("text"))
            await note_plain(argv)
            return await _plain(session, request, repeated=started)
        if answer.word not in ("running", "busy"):
            raise error_of(answer, session, request, argv)
        started = may_run = True
        if patience.is_over:
            patience.end(started=True)
        if answer.word == "busy":
            await asyncio.sleep(BUSY_S)


class _Patience:
    """How long the activity may wait for its command; None is until its end."""

    def __init__(self, within_s: float | None) -> None:
        self._within_s = within_s
        self._begun = time.monotonic()

    def at_most(self, seconds: float) -> float:
        return seconds if self._within_s is None else min(seconds, self._within_s)

    @property
    def is_over(self) -> bool:
        return self._within_s is not None and time.monotonic() - self._begun >= self._within_s

    def end(self, *, started: bool) -> None:
        """Raise `Unfinished` unless the activity may wait."""
        if self._within_s is not None:
            raise Unfinished(started=started)


def error_of(
    answer: Answer, session: SandboxSession, request: m.CommandRequest, argv: Sequence[str]
) -> Exception:
    """Return the error for an answer that is not a command's result."""
    if answer.word == "ended":
        return unknown(session, request, f"it was ended ({answer.text('reason')})")
    if answer.word == "dropped":
        return unknown(session, request, "its record was pruned")
    if answer.word == "lost":
        return unknown(session, request, "its processes are gone and left no exit code")
    if answer.word == "notrun" or answer.is_refusal:
        what = answer.text("text") or "no process or memory is available there"
        return _did_not_run(argv, what)
    return unknown(session, request, f"the helper says {answer.word}: {answer.text('text')}")


async def unanswered(
    helper: Helper,
    session: SandboxSession,
    request: m.CommandRequest,
    argv: Sequence[str],
    silence: NotAnAnswer,
) -> Exception:
    """Return the error for a sandbox that runs calls but does not return their output."""
    if isinstance(silence, RecordsRemoved):  # A new helper would report that it never started.
        return unknown(session, request, str(silence))
    try:
        answer = await helper.ask("end", [("key", request.operation_id), ("reason", "unanswered")])
    except NotAnAnswer:
        return unknown(session, request, "its sandbox does not return its result")
    if answer.number("never"):
        # The helper has recorded that nobody may start it.
        return _did_not_run(argv, str(silence), retryable=False)
    return unknown(session, request, "its sandbox does not return its result")


def failed_unanswered(
    session: SandboxSession, request: m.CommandRequest, error: ExecFailureError
) -> OutcomeUnknown:
    """Return the error for a command that a backend may run although it failed with `error`."""
    return OutcomeUnknown(
        f"{summarize(request.summary())!r} may or may not have run in session "
        f"{session.state.session_id}, or may still: its sandbox did not answer, and then refused "
        f"({error.message}). It was not repeated; look at the workspace before you run it again."
    )


def _did_not_run(argv: Sequence[str], why: str, *, retryable: bool = True) -> ExecTransportError:
    return ExecTransportError(
        command=argv,
        message=f"the command did not run: {why}",
        context={"reason": "not_run"},
        retryable=retryable,
    )


def unknown(session: SandboxSession, request: m.CommandRequest, why: str) -> OutcomeUnknown:
    """Return the error for a command that was started and whose outcome is unknown."""
    return OutcomeUnknown(
        f"{summarize(request.summary())!r} was started in session {session.state.session_id}, "
        f"and how it ended is not known: {why}. It was not repeated; look at the workspace before "
        f"you run it again."
    )


def argv_of(session: SandboxSession, request: m.CommandRequest) -> list[str]:
    """Return the command's arguments as the backend itself would prepare them."""
    return prepared_command(session, *request.command, shell=shell_of(request), user=None)


def shell_of(request: m.CommandRequest) -> bool | list[str]:
    """Return the command's `shell` argument as the SDK expects it."""
    return request.shell if isinstance(request.shell, bool) else list(request.shell)


def milliseconds(seconds: float) -> int:
    """Return `seconds` in the helper's unit."""
    return max(0, round(seconds * 1000))
