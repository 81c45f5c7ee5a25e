"""Finds the helper of a session, for the commands of one user, and sends it requests.

Requests go over its socket on the worker's own host. Elsewhere they go through a relay where the
provider can connect to a process, otherwise, or if that fails, through the session's `exec`.
The first command in a sandbox installs the helper. Where it cannot run, `helper_for` raises
`Unusable`; if that is lasting, for as long as the worker holds the session.
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

from sandbox_core.providers import SupportsHostProcesses, SupportsProcessStreams
from sandbox_core.providers.registry import Provider
from sandbox_core.worker.commands.binaries import why_off
from sandbox_core.worker.commands.doubt import note_unanswered
from sandbox_core.worker.commands.host import HostHelper, context_fields, install_on_host
from sandbox_core.worker.commands.install import Installed, Unusable, install
from sandbox_core.worker.commands.length import LONGEST_COMMAND
from sandbox_core.worker.commands.protocol import Answer, Field, NotAnAnswer, parse_text, pieces
from sandbox_core.worker.commands.relays import Relays
from sandbox_core.worker.sdk_session import backend_session

logger = logging.getLogger(__name__)

_OWN_WORDS = 64 * 1024
"""What a request and the backend add to a command, the environment included; more than enough."""

_ASKED = 3
"""How often a request is made, in all, whose call returns without the helper's answer."""


class Helper(abc.ABC):
    """The helper for one user's commands in the sandbox of one session."""

    attached_s: float
    """How long one request waits for a running command before another is made."""

    @property
    @abc.abstractmethod
    def read_s(self) -> float:
        """How long a read may wait for output, in seconds; 0 where it is a call of the backend."""

    @abc.abstractmethod
    async def command(self, argv: Sequence[str], *, tty: bool = False) -> list[Field]:
        """Return the fields of a request that describe the command to run.

        Raises:
            Unusable: The command is too long for a request, if not for the backend.
            SandboxError: The backend would refuse the command.
        """

    @abc.abstractmethod
    async def ask(self, verb: str, fields: Iterable[Field], *, about: Sequence[str] = ()) -> Answer:
        """Make one request; it may be made again if this raises.

        Args:
            verb: The verb of the protocol.
            fields: The verb's arguments.
            about: The user's command, named in errors.

        Raises:
            NotAnAnswer: No attempt got an answer.
            SandboxError: The backend failed.
        """

    @abc.abstractmethod
    def exit_code(self, answer: Answer) -> int:
        """Return the exit code of an ended command, in the backend's convention."""


class _OnHost(Helper):
    """Is asked over its socket; each request carries what its command inherits."""

    attached_s = 300.0
    read_s = 300.0

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
        # The convention of Python's `subprocess`, and so of the SDK's backend.
        return -answer.number("signal") if "signal" in answer.fields else answer.number("code")


class _ThroughExec(Helper):
    """Is asked through a relay, or with one call of the backend's `exec` per request."""

    attached_s = 20.0

    def __init__(
        self,
        session: BaseSandboxSession,
        user: str | None,
        installed: Installed,
        relays: Relays | None = None,
    ) -> None:
        self._session = session
        self._user = user
        self._installed = installed
        self._relays = relays

    @property
    def read_s(self) -> float:
        return self.attached_s if self._relays is not None and self._relays.in_use else 0.0

    @property
    def records(self) -> str:
        return self._installed.state

    async def command(self, argv: Sequence[str], *, tty: bool = False) -> list[Field]:
        described: list[Field] = [("arg", word) for word in argv]
        size = sum(len(piece) + 1 for piece in pieces(described))
        if size > LONGEST_COMMAND - _OWN_WORDS:
            raise Unusable("the command is too long to be passed to it", lasting=False)
        return described

    async def ask(self, verb: str, fields: Iterable[Field], *, about: Sequence[str] = ()) -> Answer:
        fields = list(fields)
        unanswered, why = False, "the sandbox does not return the helper's answers"
        try:
            relayed = await self._through_relay(verb, fields)
        except NotAnAnswer as silence:
            logger.debug("no answer to %s from a relay: %s", verb, silence)
            unanswered = True
        else:
            if relayed is not None:
                return relayed
        try:
            for _ in range(_ASKED):
                try:
                    answer = await self._call(verb, fields)
                    if not (unanswered and answer.is_refusal):
                        return answer
                    break  # An earlier request may have been carried out.
                except NotAnAnswer as silence:
                    logger.debug("no answer to %s from a sandbox: %s", verb, silence)
                    unanswered = True
                except ExecFailureError as error:
                    if not isinstance(error.cause, FileNotFoundError):
                        raise
                try:
                    # The helper was removed, or the sandbox has a new file system.
                    self._installed = await install(self._session, self._user)
                except Unusable as error:
                    why = str(error)
                    if error.lasting:
                        break
        except ExecFailureError as error:
            if unanswered:
                note_unanswered(error)
            raise about_command(error, about) from error.cause
        raise NotAnAnswer(why)

    async def _through_relay(self, verb: str, fields: Sequence[Field]) -> Answer | None:
        if self._relays is None:
            return None
        answer = await self._relays.ask(self._installed, verb, fields)
        if answer is not None and answer.word == "exited" and "signal" in answer.fields:
            return None  # It is recorded, and the backend reports a signal in a way of its own.
        return answer

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
        # A `run` ends the way its command did: the backend has reported that in its convention.
        return answer.reported or 128 + answer.number("signal")

    async def aclose(self) -> None:
        if self._relays is not None:
            await self._relays.aclose()


def about_command(error: ExecFailureError, command: Sequence[str]) -> ExecFailureError:
    """Make an error of a helper call name the user's command, and return it."""
    error.command = tuple(command) or ("sandbox-helper",)
    error.context.update(command=error.command, command_str=shlex.join(error.command))
    if error.retryable is None and isinstance(error.cause, FileNotFoundError):
        error.retryable = False  # sh or sudo is missing: nothing has run.
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
    """Return the helper, installing it in the sandbox if necessary.

    Args:
        provider: The session's provider.
        session: Whose sandbox the commands run in.
        user: The user that runs them; None for the backend's default.
        about: The command that needs the helper, named in errors.

    Raises:
        Unusable: It cannot run there, or is turned off.
        SandboxError: The backend failed.
    """
    if why := _why_never(provider):
        raise Unusable(why)
    known = _helpers.setdefault(session, {})
    future = known.get(user)
    if future is None or (future.done() and not _settled(future)):
        future = known[user] = asyncio.ensure_future(_open(provider, session, user))
    try:
        # A cancelled caller only stops waiting: others may be waiting too.
        return await asyncio.shield(future)
    except ExecFailureError as error:
        raise about_command(error, about) from error.cause


def _why_never(provider: Provider) -> str | None:
    """Return why no session of the provider has the helper on this worker; None if one may."""
    if why := why_off():
        return why
    if not provider.durable_processes:
        return "its provider's processes do not outlive the call that started them"
    return None


def users_of(session: SandboxSession) -> tuple[str | None, ...]:
    """Return the users that ran commands here, the backend's default one first."""
    return tuple(dict.fromkeys((None, *_helpers.get(session, {}))))


def known_records(session: SandboxSession, user: str | None) -> str | None:
    """Return the folder in the sandbox that has the helper's records of its commands.

    None on the worker's host, or if this worker has not run a command under the helper.
    """
    future = _helpers.get(session, {}).get(user)
    if future is None or not _settled(future) or future.exception() is not None:
        return None
    helper = future.result()
    return helper.records if isinstance(helper, _ThroughExec) else None


async def close_helpers(session: SandboxSession) -> None:
    """Close the connections to the session's sandbox; what runs there goes on."""
    for future in _helpers.get(session, {}).values():
        if _settled(future) and future.exception() is None:
            helper = future.result()
            if isinstance(helper, _ThroughExec):
                await helper.aclose()


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
        installed = await install(inner, user)
        relays = (
            Relays(provider, inner, user) if isinstance(provider, SupportsProcessStreams) else None
        )
        return _ThroughExec(inner, user, installed, relays)
    except Unusable as error:
        logger.warning(
            "commands in session %s run at most once, without the helper: %s",
            session.state.session_id,
            error,
        )
        raise


_refusals: WeakKeyDictionary[SandboxSession, dict[str | None, str]] = WeakKeyDictionary()


def note_refusal(session: SandboxSession, user: str | None, why: str | None) -> None:
    """Record why the last command ran without the installed helper; None if it ran under it."""
    if why is not None or session in _refusals:
        _refusals.setdefault(session, {})[user] = why or ""


async def used_helper(
    provider: Provider, session: SandboxSession, user: str | None = None
) -> Helper | None:
    """Return the helper, or None if it cannot have started anything.

    Raises:
        SandboxError: The backend failed.
    """
    if _why_never(provider):
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
    """Return why the session's commands run without the helper; None if they run under it."""
    if why := _why_never(provider):
        return why
    future = _helpers.get(session, {}).get(user)
    if future is None or not future.done() or future.cancelled():
        return None
    error = future.exception()
    if isinstance(error, Unusable):
        return str(error)
    return _refusals.get(session, {}).get(user) or None
