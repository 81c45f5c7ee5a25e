"""Commands that run exactly once, whatever becomes of the worker that asked for them.

A command runs in the sandbox under a small POSIX sh shim, detached, keyed by the operation id of
the request: the shim's files in a private folder of the sandbox are the lock, the output and the
exit code. Whoever asks again with the same id, on any worker, waits for the running command or
gets the recorded result. ``shim.sh`` answers requests, ``runner.sh`` runs one command.

Limits. A descendant of a command that has left its session and its process tree, and has closed
descriptor 9 too, is not found when the command is ended. Where the sandbox has no ``/proc``, only
the command's process group is ended; where it has no ``setsid``, a command does not survive the
backend's killing of the call that started it. A command that a signal killed is reported as the
backend reports one, except after SIGINT and SIGPIPE and under bash as ``sh``: then as 128 plus the
signal's number. Descriptor 9 is open in a command, and ``PWD`` is in its environment.

Of commands that have ended, the newest 64 keep their records, and those of the last hour; of more
than 256 MiB of output the newest that fit, and the newest 8 in any case (`records` says why). Asked
for later, a command is not repeated: `OutcomeUnknown`. A session has at most the SDK's 64 open
processes a user; one more ends the one that was used longest ago, as the SDK's backends do.

A session without ``sh`` or a writable ``/tmp``, and a provider with ``durable_processes = False``,
get the plain call, at most once: a second attempt raises `OutcomeUnknown`.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote
from weakref import WeakKeyDictionary, WeakSet

from agents.sandbox.errors import ExecTimeoutError, PtySessionNotFoundError
from agents.sandbox.session.pty_output import _incomplete_utf8_suffix_length
from agents.sandbox.session.pty_types import (
    PTY_PROCESS_ID_MAX_EXCLUSIVE,
    PTY_PROCESS_ID_MIN,
    PTY_PROCESSES_MAX,
    PTY_PROCESSES_PROTECTED_RECENT,
    PtyExecUpdate,
    clamp_pty_yield_time_ms,
    resolve_pty_write_yield_time_ms,
    truncate_text_by_tokens,
)
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult
from temporalio.exceptions import ApplicationError

from sandbox_core.errors import OutcomeUnknown
from sandbox_core.wire import messages as m
from sandbox_core.wire.failures import encode_error
from sandbox_core.wire.summaries import summarize
from sandbox_core.worker.attempts import attempt
from sandbox_core.worker.commands.retention import add_output, to_prune
from sandbox_core.worker.commands.shim import (
    FOLDER,
    KILL_S,
    RUNNER,
    SHIM,
    Answer,
    Overdue,
    Shim,
    end_command,
    until,
)

logger = logging.getLogger(__name__)

_ResultT = TypeVar("_ResultT")

_ATTACHED_S = 20.0
"""How long one call waits for a command that is running already; then it is asked again."""

_MAX_SILENT = 3
"""How many calls in a row may come back without the shim's answer."""

_MAX_REPEATED = 1000
"""How many repeated requests are kept in mind."""

_repeated: OrderedDict[str, None] = OrderedDict()
_without_shim: WeakSet[SandboxSession] = WeakSet()
_terminals: WeakKeyDictionary[SandboxSession, set[int]] = WeakKeyDictionary()


def announce(
    request: m.ExecRequest | m.PtyExecStartRequest | m.PtyWriteStdinRequest, *, durable: bool = True
) -> None:
    """Take note of a request, before it is known whether this worker holds its session.

    Raises:
        OutcomeUnknown: It is a second attempt at what nothing can recognise as one.
    """
    if attempt() == 1:
        return
    if not durable or (isinstance(request, m.PtyExecStartRequest) and request.tty):
        raise _not_repeated(request.summary())
    # If the session has to be resumed here first, the workflow asks again, as a first attempt.
    _repeated[request.operation_id] = None
    while len(_repeated) > _MAX_REPEATED:
        _repeated.popitem(last=False)


def _is_repeated(request: m.ExecRequest | m.PtyExecStartRequest | m.PtyWriteStdinRequest) -> bool:
    return attempt() > 1 or request.operation_id in _repeated


# --- Commands that are run to their end -----------------------------------------------------------


async def run(
    session: SandboxSession, request: m.ExecRequest, *, durable: bool = True
) -> ExecResult:
    """Run the command of `request` once, or attach to it if it was started before.

    Raises:
        ExecTimeoutError: It took longer than its timeout, counted from its start; it was ended.
        OutcomeUnknown: It was started, and has vanished with the processes of its sandbox.
        SandboxError: The backend failed; the same request may be made again.
    """

    async def once() -> ExecResult:
        if durable and session not in _without_shim:
            result = await _run(session, request)
            if result is not None:
                return result
        return await _at_most_once(
            request.summary(), lambda: _plain(session, request), repeated=_is_repeated(request)
        )

    # Sinks and spans are told of the command, not of the shim around it.
    return await session._annotate(
        op="exec",
        start_data={
            "command": list(request.command),
            "timeout_s": request.timeout,
            "shell": _shell(request),
            "user": request.user,
        },
        run=once,
        ok=lambda result: result.ok(),
        outputs=lambda result: (result.stdout, result.stderr),
    )


async def _plain(session: SandboxSession, request: m.ExecRequest) -> ExecResult:
    return await session._inner.exec(
        *request.command, timeout=request.timeout, shell=_shell(request), user=request.user
    )


async def _run(session: SandboxSession, request: m.ExecRequest) -> ExecResult | None:
    """Run the command under the shim; None if the shim cannot, and has not started it."""
    argv = _argv(session, request)
    shim = Shim(session=session, user=request.user, argv=argv)
    timeout = "-" if request.timeout is None else _hundredths(request.timeout)
    loop = asyncio.get_running_loop()
    deadline = None if request.timeout is None else loop.time() + request.timeout
    prune = to_prune(session, shim.own_folder)
    silent = 0
    while True:
        try:
            answer = await until(
                deadline,
                shim.ask(
                    "run",
                    shim.own_folder,
                    request.operation_id,
                    request.operation_id,
                    shim.root,
                    _hundredths(_ATTACHED_S),
                    timeout,
                    prune,
                    RUNNER,
                    f"={argv[0]}",
                    *argv[1:],
                ),
                end=lambda reason: end_command(shim, request.operation_id, reason),
            )
        except Overdue as overdue:
            if overdue.ended:
                raise ExecTimeoutError(command=argv, timeout_s=request.timeout) from None
            deadline = None  # It came to its own end in the meantime: the result is there.
            continue
        except ExecTimeoutError:  # A limit of the backend's own.
            await end_command(shim, request.operation_id, "timeout")
            raise
        silent = 0 if answer.words else silent + 1
        if answer.word == "exit":
            return _exited(shim, answer)
        if answer.word == "missing":
            # Let the backend say in its own way that there is no such program.
            return await _at_most_once(request.summary(), lambda: _plain(session, request))
        if answer.word == "unsupported":
            _without_shim.add(session)
            return None
        if answer.word == "overdue":
            deadline = loop.time()
        elif answer.word == "ended":
            if answer.words[1] == "timeout":
                raise ExecTimeoutError(command=argv, timeout_s=request.timeout)
            raise _unknown(session, request, f"it was ended ({answer.words[1]})")
        elif answer.word == "pruned":
            raise _unknown(session, request, "its record was pruned")
        elif answer.word == "lost":
            raise _unknown(session, request, "its processes are gone and left no exit code")
        elif silent == 1 and not await shim.works():
            _without_shim.add(session)
            return None
        elif silent >= _MAX_SILENT:
            raise _unknown(session, request, "its sandbox does not return its result")


def _exited(shim: Shim, answer: Answer) -> ExecResult:
    add_output(shim.session, shim.own_folder, answer.result)
    # The shim exits as the command did, and the backend reports that in its own way.
    reported = answer.result.exit_code
    return ExecResult(
        stdout=answer.result.stdout,
        stderr=answer.result.stderr,
        exit_code=reported or int(answer.words[1]),
    )


# --- Processes that are polled --------------------------------------------------------------------


async def start(
    session: SandboxSession, request: m.PtyExecStartRequest, *, durable: bool = True
) -> PtyExecUpdate:
    """Start the command of `request` once, and return what it wrote within the yield time.

    Raises:
        OutcomeUnknown: It was started by an earlier attempt, and its first output is not to be had.
        SandboxError: The backend failed; the same request may be made again.
    """
    if not request.tty and durable and session.supports_pty() and session not in _without_shim:
        update = await _start(session, request)
        if update is not None:
            return update
    update = await _at_most_once(
        request.summary(),
        lambda: session.pty_exec_start(
            *request.command,
            timeout=request.timeout,
            shell=_shell(request),
            user=request.user,
            tty=request.tty,
            yield_time_s=request.yield_time_s,
            max_output_tokens=request.max_output_tokens,
        ),
        repeated=_is_repeated(request),
    )
    if update.process_id is not None:
        _terminals.setdefault(session, set()).add(update.process_id)
    return update


async def _start(session: SandboxSession, request: m.PtyExecStartRequest) -> PtyExecUpdate | None:
    argv = _argv(session, request)
    shim = Shim(session=session, user=request.user, argv=argv)
    wait_ms = clamp_pty_yield_time_ms(_milliseconds(request.yield_time_s, default=10_000))
    span = PTY_PROCESS_ID_MAX_EXCLUSIVE - PTY_PROCESS_ID_MIN
    number = PTY_PROCESS_ID_MIN + zlib.crc32(request.operation_id.encode()) % span
    prune = to_prune(session, shim.own_folder)
    silent = 0
    while True:
        answer = await until(
            None,
            shim.ask(
                "start",
                shim.own_folder,
                request.operation_id,
                request.operation_id,
                shim.root,
                str(wait_ms // 10),
                str(number),
                " ".join(map(str, sorted(_terminals.get(session, ())))),
                prune,
                f"{PTY_PROCESSES_MAX} {PTY_PROCESSES_PROTECTED_RECENT}",
                RUNNER,
                f"={argv[0]}",
                *argv[1:],
            ),
            end=lambda reason: end_command(shim, request.operation_id, reason),
        )
        silent = 0 if answer.words else silent + 1
        if answer.word == "chunk":
            return _update(shim, answer, request.max_output_tokens)
        if answer.word == "pruned":
            raise _unknown(session, request, "its record was pruned")
        if answer.word == "missing":
            return await _at_most_once(
                request.summary(),
                lambda: session.pty_exec_start(
                    *request.command,
                    shell=_shell(request),
                    user=request.user,
                    yield_time_s=request.yield_time_s,
                    max_output_tokens=request.max_output_tokens,
                ),
            )
        if answer.word == "unsupported" or (silent == 1 and not await shim.works()):
            _without_shim.add(session)
            return None
        if answer.word == "lost":
            raise _unknown(session, request, "its processes are gone and left no exit code")
        if answer.words:
            raise _unknown(session, request, "it was ended before its first output was delivered")
        if silent >= _MAX_SILENT:
            raise _unknown(session, request, "its sandbox does not return its output")


async def write(
    session: SandboxSession, request: m.PtyWriteStdinRequest, *, durable: bool = True
) -> PtyExecUpdate:
    """Return the output of a process that no other request has been given.

    Raises:
        PtySessionNotFoundError: There is no such process, or its end was told already.
        RuntimeError: There are `chars` to write, and the process has no terminal.
        OutcomeUnknown: The process has a terminal, and an earlier attempt may have written to it.
        SandboxError: The backend failed; the same request may be made again.
    """
    own = request.process_id in _terminals.get(session, ())
    if durable and not own and session not in _without_shim:
        update = await _write(session, request)
        if update is not None:
            return update
    return await _at_most_once(
        f"write to process {request.summary()}",
        lambda: session.pty_write_stdin(
            session_id=request.process_id,
            chars=request.chars,
            yield_time_s=request.yield_time_s,
            max_output_tokens=request.max_output_tokens,
        ),
        repeated=_is_repeated(request),
    )


async def _write(session: SandboxSession, request: m.PtyWriteStdinRequest) -> PtyExecUpdate | None:
    """Poll a process under the shim; None if the sandbox knows of none with this id."""
    wait_ms = resolve_pty_write_yield_time_ms(
        yield_time_ms=_milliseconds(request.yield_time_s, default=250),
        input_empty=request.chars == "",
    )
    number, poll = str(request.process_id), request.operation_id
    users: list[str | None] = [None]
    for user in users:  # It grows by the users whose processes the one before may not see.
        shim = Shim(session=session, user=user)
        if request.chars:
            answer = await shim.ask("find", shim.folder, poll, number)
        else:
            answer = await shim.ask("poll", shim.folder, poll, number, poll, str(wait_ms // 10))
        if answer.word == "chunk":
            return _update(shim, answer, request.max_output_tokens)
        if answer.word == "found":
            raise _final(RuntimeError("stdin is not available for this process"))
        if answer.word == "lost":
            # Whoever polls is told that the process is gone, which is all there is to know.
            raise PtySessionNotFoundError(session_id=request.process_id)
        if user is None:
            users += map(unquote, answer.words[1:])
    return None


def _update(shim: Shim, answer: Answer, max_output_tokens: int | None) -> PtyExecUpdate:
    """Make the SDK's update of a chunk: whole characters only while the process runs."""
    add_output(shim.session, shim.own_folder, answer.result)
    _, number, back, status = answer.words
    before, new = answer.result.stdout[: int(back)], answer.result.stdout[int(back) :]
    output = before[len(before) - _incomplete_utf8_suffix_length(before) :] + new
    running = status != "exit"
    if running:
        output = output[: len(output) - _incomplete_utf8_suffix_length(output)]
    text, original_token_count = truncate_text_by_tokens(
        output.decode("utf-8", errors="replace"), max_output_tokens
    )
    return PtyExecUpdate(
        process_id=int(number) if running else None,
        output=text.encode("utf-8", errors="replace"),
        exit_code=None if running else answer.result.exit_code,
        original_token_count=original_token_count,
    )


async def terminate_all(session: SandboxSession, *, durable: bool = True) -> None:
    """End every process that was started with `start`, whichever worker started it."""
    if durable:
        await _end_all(session, "processes")
    _terminals.pop(session, None)


async def forget(session: SandboxSession, *, durable: bool = True) -> bool:
    """End everything that ever ran in the session's sandbox, and remove the records of it.

    Returns:
        Whether nothing is left; False if the sandbox could not be asked to.
    """
    return not durable or await _end_all(session, "all")


async def _end_all(session: SandboxSession, which: str) -> bool:
    if session in _without_shim:
        return True
    users: list[str | None] = [None]
    for user in users:
        shim = Shim(session=session, user=user)
        try:
            answer = await asyncio.wait_for(
                shim.ask("end", shim.folder, which, which), timeout=KILL_S
            )
        except Exception as error:  # noqa: BLE001 - the boundary to a provider's exec
            # A sandbox that is not there has no processes, and must not keep a session from ending.
            logger.info("the processes of a sandbox could not be ended: %s", error)
            return False
        if user is None:
            users += map(unquote, answer.words[1:])
    return True


async def forget_on_host(root: str) -> None:
    """End what runs on this host for the workspace at `root`, and remove the records of it.

    For a backend whose sandboxes are directories of the worker's host, when one is deleted without
    its session.
    """
    for marker in await asyncio.to_thread(lambda: list(Path("/").glob(f"{FOLDER[1:]}*/root"))):
        try:
            recorded = await asyncio.to_thread(marker.read_text)
        except OSError:  # It belongs to another user.
            continue
        if recorded.strip() == f"={root}":
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", SHIM, "sh", "end", "", str(marker.parent), "all",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            await process.wait()


# --- What both have in common ---------------------------------------------------------------------


async def _at_most_once(
    what: str, call: Callable[[], Awaitable[_ResultT]], *, repeated: bool = False
) -> _ResultT:
    """Make the backend's own call, whose repetition nothing recognises."""
    if repeated:
        raise _not_repeated(what)
    try:
        return await call()
    except ApplicationError:
        raise
    except Exception as error:  # Whatever a backend's call raises, it must not be made again.
        raise _final(error) from error


def _not_repeated(what: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{summarize(what)!r} may or may not have run: an earlier attempt did not report back, and "
        f"this sandbox cannot tell. It was not repeated; look at the workspace before you run it "
        f"again."
    )


def _final(error: Exception) -> ApplicationError:
    """Return what the activity raises for `error` so that it is not attempted again."""
    encoded = encode_error(error)
    return ApplicationError(
        encoded.message,
        *encoded.details,
        type=encoded.type,
        non_retryable=True,
        category=encoded.category,
    )


def _unknown(session: SandboxSession, request: m.CommandRequest, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{summarize(request.summary())!r} was started in session {session.state.session_id}, "
        f"and how it ended is not known: {why}. It was not repeated; look at the workspace before "
        f"you run it again."
    )


def _argv(session: SandboxSession, request: m.CommandRequest) -> list[str]:
    """Return the words of the command, as the backend itself would make them."""
    return session._inner._prepare_exec_command(*request.command, shell=_shell(request), user=None)


def _shell(request: m.CommandRequest) -> bool | list[str]:
    return request.shell if isinstance(request.shell, bool) else list(request.shell)


def _hundredths(seconds: float) -> str:
    return str(max(0, round(seconds * 100)))


def _milliseconds(seconds: float | None, *, default: int) -> int:
    return default if seconds is None else int(seconds * 1000)
