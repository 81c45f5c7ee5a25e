"""The helper of a session, for one user's commands: where it is, and how it is asked.

On the worker's own host it is asked over its socket, anywhere else through the session's `exec`.
Whether it can run in a sandbox is found out with the first command there; where it cannot,
`helper_for` raises `Unusable`, and goes on doing so for as long as the worker holds the session.
"""

from __future__ import annotations

import abc
import asyncio
import errno
import logging
import secrets
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from weakref import WeakKeyDictionary

from agents.sandbox.errors import ExecFailureError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.sandbox_session import SandboxSession

from sandbox_core.providers import SupportsHostProcesses
from sandbox_core.providers.registry import Provider
from sandbox_core.worker.commands.binaries import SWITCH, switched_off
from sandbox_core.worker.commands.host import HostHelper, context_fields, install_on_host
from sandbox_core.worker.commands.install import Installed, Unusable, install
from sandbox_core.worker.commands.protocol import Answer, Field, NotAnAnswer, parse_text, pieces
from sandbox_core.worker.sdk_session import backend_session

logger = logging.getLogger(__name__)

_ASKED = 3
"""How often a call is made that comes back without the helper's answer."""


class Helper(abc.ABC):
    """The helper for one user's commands in the sandbox of one session."""

    attached_s: float
    """How long one request waits for a command that runs; then it is asked about again."""

    @abc.abstractmethod
    async def command(self, argv: Sequence[str], *, tty: bool = False) -> list[Field]:
        """Return what a request says of the command to run.

        Raises:
            SandboxError: The backend would not run it.
        """

    @abc.abstractmethod
    async def ask(self, verb: str, fields: Iterable[Field], *, about: Sequence[str] = ()) -> Answer:
        """Make one request; it may be made again if this raises.

        Args:
            verb: What is asked.
            fields: What the verb takes.
            about: The command that it is about, for errors.

        Raises:
            NotAnAnswer: Nothing came back that is an answer, time and again.
            SandboxError: The backend failed.
        """

    @abc.abstractmethod
    def exit_code(self, answer: Answer) -> int:
        """Return the exit code of a command that has ended, as the backend has it."""


class _OnHost(Helper):
    """Asked over its socket; what a command inherits is told with each."""

    attached_s = 300.0

    def __init__(
        self, provider: SupportsHostProcesses, session: BaseSandboxSession, installed: Installed
    ) -> None:
        self._provider = provider
        self._session = session
        self._helper = HostHelper(installed, partial(install_on_host, session))

    async def command(self, argv: Sequence[str], *, tty: bool = False) -> list[Field]:
        process = await self._provider.host_process(self._session, argv)
        return context_fields(process, tty=tty)

    async def ask(self, verb: str, fields: Iterable[Field], *, about: Sequence[str] = ()) -> Answer:
        try:
            return await self._helper.ask(verb, fields)
        except (OSError, Unusable) as error:
            number = error.errno if isinstance(error, OSError) else None
            said = {"text": str(error).encode(), "errno": b"%d" % (number or errno.ENOSPC)}
            return Answer(word="unavailable", fields=said)

    def exit_code(self, answer: Answer) -> int:
        # As Python's `subprocess` has it, and with it the SDK's backend.
        return -answer.number("signal") if "signal" in answer.fields else answer.number("code")


class _ThroughExec(Helper):
    """Asked by a call of the backend's for each request."""

    attached_s = 20.0

    def __init__(self, session: BaseSandboxSession, user: str | None, installed: Installed) -> None:
        self._session = session
        self._user = user
        self._installed = installed

    @property
    def records(self) -> str:
        return self._installed.state

    async def command(self, argv: Sequence[str], *, tty: bool = False) -> list[Field]:
        return [("arg", word) for word in argv]

    async def ask(self, verb: str, fields: Iterable[Field], *, about: Sequence[str] = ()) -> Answer:
        fields = list(fields)
        unanswered, why = False, "the sandbox does not return the helper's answers"
        try:
            for _ in range(_ASKED):
                try:
                    answer = await self._call(verb, fields)
                    if not (unanswered and answer.is_refusal):
                        return answer
                    break  # What was asked before may have been carried out.
                except NotAnAnswer as silence:
                    logger.debug("no answer to %s from a sandbox: %s", verb, silence)
                    unanswered = True
                except ExecFailureError as error:
                    if not isinstance(error.cause, FileNotFoundError):
                        raise
                try:
                    # It was removed, or the sandbox has another file system by now.
                    self._installed = await install(self._session, self._user)
                except Unusable as error:
                    why = str(error)
                    if error.lasting:
                        break
        except ExecFailureError as error:
            raise about_command(error, about) from error.cause
        raise NotAnAnswer(why)

    async def _call(self, verb: str, fields: Iterable[Field]) -> Answer:
        mark = secrets.token_hex(8)
        own: list[Field] = [("dir", self._installed.state), ("mark", mark)]
        if verb == "run":
            own.append(("mimic", 1))
        words = (self._installed.program, verb, *pieces([*own, *fields]))
        result = await self._session.exec(*words, shell=False, user=self._user)
        return replace(parse_text(result.stdout, mark), reported=result.exit_code)

    def exit_code(self, answer: Answer) -> int:
        if "signal" not in answer.fields:
            return answer.number("code")
        # After a `run` the call has ended as the command did, which the backend has put in its way.
        return answer.reported or 128 + answer.number("signal")


def about_command(error: ExecFailureError, command: Sequence[str]) -> ExecFailureError:
    """Have an error of a call of ours be about the command that was asked for."""
    error.command = tuple(command) or ("sandbox-helper",)
    error.context.update(command=error.command, command_str=shlex.join(error.command))
    if error.retryable is None and isinstance(error.cause, FileNotFoundError):
        error.retryable = False  # There is no sh, or no sudo: nothing has run.
    return error


_helpers: WeakKeyDictionary[SandboxSession, dict[str | None, asyncio.Future[Helper]]] = (
    WeakKeyDictionary()
)


async def helper_for(
    provider: Provider,
    session: SandboxSession,
    user: str | None = None,
    *,
    about: Sequence[str] = (),
) -> Helper:
    """Return the helper, which is put into the sandbox if it is not there.

    Args:
        provider: The session's.
        session: Where commands are to be run.
        user: As whom; None for the backend's default.
        about: The command that it is needed for, for errors.

    Raises:
        Unusable: It cannot run there, or is not to.
        SandboxError: The backend failed.
    """
    if switched_off():
        raise Unusable(f"{SWITCH}=off")
    if not provider.durable_processes:
        raise Unusable("its provider's processes do not outlive the call that started them")
    known = _helpers.setdefault(session, {})
    future = known.get(user)
    if future is None or (future.done() and not _settled(future)):
        future = known[user] = asyncio.ensure_future(_open(provider, session, user))
    try:
        # One that is cancelled only stops waiting: others may be waiting too.
        return await asyncio.shield(future)
    except ExecFailureError as error:
        raise about_command(error, about) from error.cause


def known_records(session: SandboxSession, user: str | None) -> str | None:
    """Return the folder in which the helper of a session keeps what it knows of its commands.

    None if no command can have been run under the helper by this worker, or on the worker's host.
    """
    future = _helpers.get(session, {}).get(user)
    if future is None or not _settled(future) or future.exception() is not None:
        return None
    helper = future.result()
    return helper.records if isinstance(helper, _ThroughExec) else None


def _settled(future: asyncio.Future[Helper]) -> bool:
    if not future.done() or future.cancelled():
        return False
    error = future.exception()
    return error is None or (isinstance(error, Unusable) and error.lasting)


async def _open(provider: Provider, session: SandboxSession, user: str | None) -> Helper:
    inner = backend_session(session)
    try:
        if user is None and isinstance(provider, SupportsHostProcesses):
            return _OnHost(provider, inner, await asyncio.to_thread(install_on_host, inner))
        return _ThroughExec(inner, user, await install(inner, user))
    except Unusable as error:
        logger.warning(
            "commands in session %s run at most once, without the helper: %s",
            session.state.session_id,
            error,
        )
        raise


_refusals: WeakKeyDictionary[SandboxSession, dict[str | None, str]] = WeakKeyDictionary()


def note_refusal(session: SandboxSession, user: str | None, why: str | None) -> None:
    """Take note of why the last command was run without the helper that there is, or that not."""
    if why is not None or session in _refusals:
        _refusals.setdefault(session, {})[user] = why or ""


async def used_helper(
    provider: Provider, session: SandboxSession, user: str | None = None
) -> Helper | None:
    """Return the helper if there is anything that it could have started; None if not.

    Raises:
        SandboxError: The backend failed.
    """
    if switched_off() or not provider.durable_processes:
        return None
    try:
        if user not in _helpers.get(session, {}):
            inner = backend_session(session)
            on_host = user is None and isinstance(provider, SupportsHostProcesses)
            installed = await (
                asyncio.to_thread(install_on_host, inner)
                if on_host
                else install(inner, user, upload=False)
            )
            if not installed.used:
                return None
        return await helper_for(provider, session, user)
    except Unusable:
        return None


def why_plain(provider: Provider, session: SandboxSession, user: str | None) -> str | None:
    """Return why the commands of a session are run without the helper; None if they are not."""
    if switched_off():
        return f"{SWITCH}=off"
    if not provider.durable_processes:
        return "its provider's processes do not outlive the call that started them"
    future = _helpers.get(session, {}).get(user)
    if future is None or not future.done() or future.cancelled():
        return None
    error = future.exception()
    if isinstance(error, Unusable):
        return str(error)
    return _refusals.get(session, {}).get(user) or None
