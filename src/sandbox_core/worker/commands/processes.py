"""Starts processes once, and lets any worker poll them by offset.

The SDK knows a process by a number; the helper also knows it by the operation id of the request
that started it. Reading changes nothing: the workflow keeps the offset, and an unanswered poll is
repeated from there. Each input carries the operation id of its request and is written once.

The output of processes that have exited stays readable.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from agents.sandbox.errors import (
    ExecFailureError,
    ExecTransportError,
    PtySessionNotFoundError,
)
from agents.sandbox.session.pty_types import (
    PTY_PROCESS_ID_MAX_EXCLUSIVE,
    PTY_PROCESS_ID_MIN,
    PtyExecUpdate,
    clamp_pty_yield_time_ms,
    resolve_pty_write_yield_time_ms,
    truncate_text_by_tokens,
)
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.providers.registry import Provider
from sandbox_core.wire import messages as m
from sandbox_core.worker.commands import between_polls, retention
from sandbox_core.worker.commands.doubt import hides_outcome, note_asked
from sandbox_core.worker.commands.ending import end_command, until
from sandbox_core.worker.commands.helper import Helper, helper_for, note_refusal
from sandbox_core.worker.commands.install import Unusable
from sandbox_core.worker.commands.length import check_length, too_long
from sandbox_core.worker.commands.live import BOTH, Publication, publishing
from sandbox_core.worker.commands.output import dropped_line, partial_character
from sandbox_core.worker.commands.plain import at_most_once, final, is_repeated, note_plain
from sandbox_core.worker.commands.protocol import Answer, Field, NotAnAnswer
from sandbox_core.worker.commands.room import make_room
from sandbox_core.worker.commands.run import (
    BACKEND_SAYS,
    BUSY_S,
    argv_of,
    error_of,
    failed_unanswered,
    shell_of,
    unanswered,
    unknown,
)

KEPT_BYTES = 8 * 1024 * 1024
"""How many bytes of a process's output are kept for polling; beyond that, the middle is dropped."""

_DATA_BYTES = 64 * 1024
"""The most bytes of a process's input that go into one request."""

_OTHER_USERS = 50_000
"""The first process number of users other than the backend's default one."""


@dataclass(frozen=True, kw_only=True)
class Polled:
    """What a process wrote, and the offset in bytes at which the next poll continues.

    The offset is None for a process of the backend's own, which keeps it itself. `whole` means that
    the update has all bytes up to there. `published` says up to where they are published, if any.
    """

    update: PtyExecUpdate
    offset: int | None = None
    whole: bool = True
    published: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Known:
    """What this worker knows of the processes in a session."""

    plain: set[int]
    """The numbers of the backend's own processes, which no other worker can poll."""

    running: dict[str | None, int]
    """An upper bound of the running processes of each user; unknown without an entry."""


_known: WeakKeyDictionary[SandboxSession, _Known] = WeakKeyDictionary()


def _of(session: SandboxSession) -> _Known:
    return _known.setdefault(session, _Known(plain=set(), running={}))


async def start(
    provider: Provider, session: SandboxSession, request: m.PtyExecStartRequest
) -> Polled:
    """Start the command of `request` once, and return what it wrote within the yield time.

    Raises:
        InvalidRequest: It is too long for Linux; it did not run.
        OutcomeUnknown: An earlier attempt started it, and its first output is unavailable.
        SandboxError: The backend failed; the same request may be made again.
    """
    argv, key = argv_of(session, request), request.operation_id
    check_length(provider, argv)
    try:
        helper = await helper_for(provider, session, request.user, about=argv)
        described = await helper.command(argv, tty=request.tty)
    except Unusable as error:
        if not error.lasting:
            note_refusal(session, request.user, str(error))
            await note_plain(argv)
        return await _plain_start(session, request, repeated=is_repeated(request))
    if not session.supports_pty():
        return await _plain_start(session, request)  # The backend raises the error.
    await make_room(helper, request.user, _of(session).running)
    first, end = _numbers(request.user)
    fields: list[Field] = [
        ("key", key),
        ("wait", clamp_pty_yield_time_ms(_milliseconds(request.yield_time_s, default=10_000))),
        ("max", KEPT_BYTES),
        ("out_max", KEPT_BYTES),
        ("tty", int(request.tty)),
        ("number_min", first),
        ("number_max", end),
        ("taken", " ".join(map(str, sorted(_of(session).plain)))),
        *described,
    ]
    async with publishing(helper, request, ("key", key), (BOTH,)) as publication:
        polled = await _started(helper, session, request, argv, fields)
        _note(publication, polled)
    _go_on(session, request.user, publication, polled)
    return replace(polled, published=publication.published)


def _note(publication: Publication, polled: Polled) -> None:
    publication.goes_on = polled.update.process_id is not None
    # What comes before the rest has to be published before it; and the response may not have it.
    publication.whole = publication.goes_on or not polled.whole


def _go_on(
    session: SandboxSession, user: str | None, publication: Publication, polled: Polled
) -> None:
    number = polled.update.process_id
    if number is not None:
        for publisher in publication.unfinished:
            between_polls.go_on(session, between_polls.key_of(user, number), publisher)


async def _started(
    helper: Helper,
    session: SandboxSession,
    request: m.PtyExecStartRequest,
    argv: Sequence[str],
    fields: Sequence[Field],
) -> Polled:
    key = request.operation_id
    started = is_repeated(request)
    note_asked()
    while True:
        try:
            answer = await until(
                None,
                helper.ask("start", fields, about=argv),
                end=lambda reason: end_command(helper, key, reason),
            )
        except NotAnAnswer as silence:
            raise await unanswered(helper, session, request, argv, silence) from None
        except ExecFailureError as error:
            if await hides_outcome(error, may_run=request.repeated):
                raise failed_unanswered(session, request, error) from error
            raise
        if answer.word == "chunk":
            if "reason" in answer.fields:
                why = f"it was ended ({answer.text('reason')})"
                raise unknown(session, request, why)
            if retention.is_due(session, request.user):
                await retention.prune(helper)
            return await _polled(helper, answer, 0, request.max_output_tokens)
        if answer.is_too_long:
            raise too_long(argv)
        if answer.word == "notrun" and answer.text("why") in BACKEND_SAYS:
            return await _plain_start(session, request)
        if answer.is_for_want_of_room:
            note_refusal(session, request.user, answer.text("text"))
            await note_plain(argv)
            return await _plain_start(session, request, repeated=started)
        started = True
        if answer.word != "busy":
            raise error_of(answer, session, request, argv)
        await asyncio.sleep(BUSY_S)


async def _plain_start(
    session: SandboxSession, request: m.PtyExecStartRequest, *, repeated: bool = False
) -> Polled:
    update = await at_most_once(
        request.summary(),
        lambda: session.pty_exec_start(
            *request.command,
            timeout=request.timeout,
            shell=shell_of(request),
            user=request.user,
            tty=request.tty,
            yield_time_s=request.yield_time_s,
            max_output_tokens=request.max_output_tokens,
        ),
        repeated=repeated,
        command=request.command,
    )
    if update.process_id is not None:
        _of(session).plain.add(update.process_id)
    return Polled(update=update)


async def write(
    provider: Provider, session: SandboxSession, request: m.PtyWriteStdinRequest
) -> Polled:
    """Write to a process, once, and return its output from the request's offset on.

    Raises:
        PtySessionNotFoundError: There is no such process, or its end was already reported.
        RuntimeError: There are `chars` to write, but the process does not accept input.
        OutcomeUnknown: The process is the backend's own, and an earlier attempt may have polled it.
        SandboxError: The backend failed; the same request may be made again.
    """
    if request.ended:
        raise PtySessionNotFoundError(session_id=request.process_id)
    try:
        helper = await helper_for(provider, session, request.user)
    except Unusable:
        helper = None
    if helper is None or request.process_id in _of(session).plain:
        return await _plain_write(session, request)
    number: Field = ("number", request.process_id)
    key = between_polls.key_of(request.user, request.process_id)
    before = await between_polls.take_back(session, key)
    async with publishing(
        helper, request, number, (BOTH,), since=request.offset, before=before
    ) as publication:
        answer = await _write_and_read(helper, request)
        if answer.word != "chunk" or "reason" in answer.fields:
            raise PtySessionNotFoundError(session_id=request.process_id)
        polled = await _polled(helper, answer, request.offset, request.max_output_tokens)
        _note(publication, polled)
    _go_on(session, request.user, publication, polled)
    return replace(polled, published=publication.published)


async def _plain_write(session: SandboxSession, request: m.PtyWriteStdinRequest) -> Polled:
    update = await at_most_once(
        f"write to process {request.summary()}",
        lambda: session.pty_write_stdin(
            session_id=request.process_id,
            chars=request.chars,
            yield_time_s=request.yield_time_s,
            max_output_tokens=request.max_output_tokens,
        ),
        repeated=is_repeated(request),
    )
    return Polled(update=update)


async def _write_and_read(helper: Helper, request: m.PtyWriteStdinRequest) -> Answer:
    wait = resolve_pty_write_yield_time_ms(
        yield_time_ms=_milliseconds(request.yield_time_s, default=250),
        input_empty=request.chars == "",
    )
    number: Field = ("number", request.process_id)
    if request.hang_up:
        await _asked(helper, "end", [number, ("reason", "hang-up")], 0)
    asked: list[Field] = [number, ("from", request.offset), ("max", KEPT_BYTES)]
    if request.until_output:
        asked.append(("until", "data"))
    data = request.chars.encode()
    answer = Answer(word="chunk")
    for start_at in range(0, len(data), _DATA_BYTES):
        last = start_at + _DATA_BYTES >= len(data)
        written: list[Field] = [
            ("id", f"{request.operation_id}-{start_at}"),
            ("data", data[start_at : start_at + _DATA_BYTES]),
            ("wait", wait if last else 0),
        ]
        answer = await _asked(helper, "write", [*asked, *written], wait)
        if answer.word != "chunk" or "reason" in answer.fields:
            return answer
        if answer.text("written") == "busy":
            raise final(RuntimeError("the process does not read its input"))
        if answer.text("written") == "0" and answer.text("mode") != "tty":
            raise final(RuntimeError("stdin is not available for this process"))
    if not data:
        answer = await _asked(helper, "read", [*asked, ("wait", wait)], wait)
    return answer


async def _asked(helper: Helper, verb: str, fields: Iterable[Field], wait_ms: int) -> Answer:
    """Ask until the process is not busy, for `wait_ms` at most."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_ms / 1000
    fields = list(fields)
    while True:
        try:
            answer = await helper.ask(verb, fields)
        except NotAnAnswer as silence:
            raise ExecTransportError(
                command=("sandbox-helper", verb), message=str(silence), retryable=True
            ) from silence
        if answer.is_refusal:  # The process may well be running.
            raise ExecTransportError(
                command=("sandbox-helper", verb), message=answer.text("text"), retryable=True
            )
        busy = answer.word == "busy" or answer.text("written") == "busy"
        if not busy or loop.time() >= deadline:
            return answer
        await asyncio.sleep(BUSY_S)


async def _polled(
    helper: Helper, answer: Answer, offset: int, max_output_tokens: int | None
) -> Polled:
    """Return the output from `offset` on as the SDK's update, in whole characters only."""
    pieces: list[bytes] = []
    while True:
        at = answer.number("at")
        if at > offset:
            pieces.append(dropped_line(at - offset, KEPT_BYTES))
        pieces.append(answer.fields.get("data", b""))
        offset = answer.number("next")
        running = not answer.number("end")
        # A few answers hold all that is kept; what is written meanwhile is for the next poll.
        if not running or offset >= answer.number("total") or len(pieces) > 8:
            break
        number: Field = ("number", answer.number("number"))
        more = await _asked(helper, "read", [number, ("from", offset), ("max", KEPT_BYTES)], 0)
        if more.word != "chunk":
            break
        answer = more
    output = b"".join(pieces)
    if running:
        partial = partial_character(output)
        output, offset = output[: len(output) - partial], offset - partial
    text, original_token_count = truncate_text_by_tokens(
        output.decode("utf-8", errors="replace"), max_output_tokens
    )
    shown = text.encode("utf-8", errors="replace")
    return Polled(
        update=PtyExecUpdate(
            process_id=answer.number("number") if running else None,
            output=shown,
            exit_code=None if running else helper.exit_code(answer),
            original_token_count=original_token_count,
        ),
        offset=offset,
        whole=shown == output,
    )


async def resize(provider: Provider, session: SandboxSession, request: m.PtyResizeRequest) -> None:
    """Set the size of a process's terminal.

    Raises:
        PtySessionNotFoundError: The helper has no such process, or it has ended.
        SandboxError: The backend failed; the same request may be made again.
    """
    not_found = PtySessionNotFoundError(session_id=request.process_id)
    try:
        helper = await helper_for(provider, session, request.user)
    except Unusable as error:
        raise not_found from error
    size: list[Field] = [("rows", request.rows), ("cols", request.columns)]
    answer = await _asked(helper, "resize", [("number", request.process_id), *size], 0)
    if answer.word != "done":
        raise not_found


def _numbers(user: str | None) -> tuple[int, int]:
    """Return the range of a user's process numbers, the end exclusive.

    Each user has a separate helper, which does not know the numbers of the others.
    """
    if user is None:
        return PTY_PROCESS_ID_MIN, _OTHER_USERS
    share = (PTY_PROCESS_ID_MAX_EXCLUSIVE - _OTHER_USERS) // 10
    first = _OTHER_USERS + zlib.crc32(user.encode()) % 10 * share
    return first, first + share


def _milliseconds(seconds: float | None, *, default: int) -> int:
    return default if seconds is None else int(seconds * 1000)
