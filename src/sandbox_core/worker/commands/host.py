"""Sends requests to the helper on the worker's own host, over its socket, without a new process.

A command inherits what the backend's own call would give it: the environment and working directory
come from the provider, the rest from this worker's process.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import resource
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from agents.sandbox.session.base_sandbox_session import BaseSandboxSession

from sandbox_core.providers import HostProcess
from sandbox_core.providers.private_folder import make_private
from sandbox_core.worker.commands.binaries import host_binary
from sandbox_core.worker.commands.install import BASES, Installed, Unusable, root_id, state_id
from sandbox_core.worker.commands.protocol import (
    MAX_ANSWER_BYTES,
    Answer,
    Field,
    NotAnAnswer,
    RecordsRemoved,
    frame,
    parse_message,
    parse_text,
    pieces,
)

logger = logging.getLogger(__name__)

_ASKED = 5
"""How often a request is made, in all, if the helper is killed before it answers."""

_BUSY_S = 0.02
"""How long to wait before asking a helper again whose queue of callers is full."""

_STOPPED_WITHIN_S = 10.0

_SOCKET_PATH_BYTES = 107
_RECEIVED_BYTES = 256 * 1024
_RLIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
_STATUS = re.compile(rb"^(Umask|SigBlk|SigIgn):\t([0-9a-f]+)$", re.MULTILINE)
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python ignores, and resets in the processes that it starts."""

_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
"""Signals that a process with a terminal never ignores, as in the SDK."""


def install_on_host(session: BaseSandboxSession) -> Installed:
    """Put the helper on this host, unless it is there. Blocks for a moment.

    Raises:
        Unusable: It cannot run here.
    """
    program = _program()
    name = f".sandbox-{os.getuid()}-{state_id(session)}"
    states = [base / name for base in _bases()]
    used = next((state for state in states if _is_ours(state)), None)
    free = next((state for state in states if not os.path.lexists(state)), None)
    if used is None and free is None:
        raise Unusable("no writable directory")
    return Installed(program=program, state=str(used or free), used=used is not None)


def _program() -> str:
    binary = host_binary()
    if binary is None:
        raise Unusable("there is none for this host")
    full = False
    for base in _bases():
        folder = base / f".sandbox-helper-{os.getuid()}"
        with suppress(OSError):
            folder.mkdir(mode=0o700)
        try:
            if _is_ours(folder) and _put(folder / binary.name, binary.content):
                return str(folder / binary.name)
        except OSError as error:
            logger.debug("the helper cannot be put into %s: %s", folder, error)
            full = True
    if full:
        raise Unusable("no room in any writable directory", lasting=False)
    raise Unusable("no directory that allows executables")


def states_on_host(root: str) -> list[str]:
    """Return the state folders for the workspace at `root` whose helper this user may ask.

    They are those of all sessions and, for root, of all users.
    """
    found = (base.glob(f".sandbox-*-{root_id(root)}-*") for base in map(Path, BASES))
    return [str(state) for states in found for state in states if _may_be_asked(state)]


def _may_be_asked(state: Path) -> bool:
    try:
        status = state.lstat()
    except OSError:
        return False
    # Anybody can create a folder of any name in /tmp: its owner must be the user that it names.
    private = status.st_mode & 0o170077 == 0o040000
    named = state.name.split("-")[1] == str(status.st_uid)
    return private and named and os.getuid() in (0, status.st_uid)


def _bases() -> list[Path]:
    return [Path(base) for base in BASES if os.access(base, os.W_OK | os.X_OK)]


def _is_ours(folder: Path) -> bool:
    try:
        make_private(folder)
    except OSError:
        return False
    return True


def _put(path: Path, content: bytes) -> bool:
    """Write the program, unless it is there; return whether it can be executed.

    Raises:
        OSError: The disk or the quota is full.
    """
    try:
        if not path.exists():
            descriptor, name = tempfile.mkstemp(dir=path.parent)
            try:
                with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor
                    file.write(content)
                Path(name).chmod(0o700)
                Path(name).replace(path)
            except OSError:
                Path(name).unlink()  # Leave the remaining space to others.
                raise
        return os.access(path, os.X_OK)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        logger.debug("the helper cannot be put into %s: %s", path.parent, error)
        return False


class HostHelper:
    """The helper of one session on this host."""

    def __init__(
        self, installed: Installed, reinstall: Callable[[], Installed] | None = None
    ) -> None:
        """Use the helper that is `installed`; `reinstall` puts it back if it was removed."""
        self._installed = installed
        self._reinstall = reinstall

    async def ask(self, verb: str, fields: Iterable[Field], *, boot: bool = True) -> Answer:
        """Make one request.

        Args:
            verb: The verb of the protocol.
            fields: The verb's arguments.
            boot: Whether to start the helper if it does not run; otherwise the answer is "absent".

        Raises:
            NotAnAnswer: No attempt got an answer.
            OSError: The helper can be neither reached nor started; nothing was carried out.
            Unusable: The helper was removed and cannot be put back; nothing was carried out.
        """
        request = frame(verb, fields)
        unanswered = False  # If true, the request may have been carried out.
        try:
            for _ in range(_ASKED):
                try:
                    answer = await self._once(request)
                except (ConnectionResetError, BrokenPipeError) as error:
                    logger.debug("the helper gave no answer to %s: %r", verb, error)
                    answer, unanswered = None, True
                if answer is not None:
                    if verb == "stop":
                        await asyncio.to_thread(_reap, answer.number("pid"))
                    return answer
                if not boot:
                    return Answer(word="absent")
                answer = await self._boot(records_needed=unanswered and verb != "stop")
                if answer.word != "ready":
                    if unanswered:
                        break
                    return answer
        except (OSError, Unusable) as error:
            if not unanswered:
                raise
            raise NotAnAnswer(f"no answer to {verb}: {error}") from error
        raise NotAnAnswer(f"no answer to {verb}")

    async def _once(self, request: bytes) -> Answer | None:
        """Make a request; return None if no helper accepts it."""
        try:
            return await _exchange(self._installed.state, request)
        except BlockingIOError:
            await asyncio.sleep(_BUSY_S)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        return None

    async def _boot(self, *, records_needed: bool) -> Answer:
        state = self._installed.state
        if records_needed and not await asyncio.to_thread(Path(state).is_dir):
            raise RecordsRemoved("the helper's records were removed")
        try:
            return await self._start()
        except FileNotFoundError:  # Somebody has cleaned up the folder.
            if self._reinstall is None:
                raise
        installed = await asyncio.to_thread(self._reinstall)
        if records_needed and installed.state != state:
            raise RecordsRemoved("the helper's records were removed")
        self._installed = installed
        return await self._start()

    async def _start(self) -> Answer:
        mark = secrets.token_hex(8)
        process = await asyncio.create_subprocess_exec(
            self._installed.program,
            "boot",
            *pieces([("dir", self._installed.state), ("mark", mark)]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={},
        )
        output, _ = await process.communicate()
        return parse_text(output, mark)


def _reap(pid: int) -> None:
    """Reap a helper that has ended, if it is a child of this process.

    It detaches itself when it starts, so its parent is process 1: in a container, maybe this one.
    """
    with suppress(ChildProcessError):
        if pid > 0:
            os.waitpid(pid, 0)


async def _exchange(state: str, request: bytes) -> Answer:
    # Not asyncio's streams: they cost as much as the rest of a short command.
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        _connect(connection, state)
        await loop.sock_sendall(connection, request)
        answer = bytearray()
        while len(answer) < 4 or len(answer) < 4 + _size(answer):
            received = await loop.sock_recv(connection, _RECEIVED_BYTES)
            if not received:
                raise ConnectionResetError("the answer was cut")
            answer += received
    return parse_message(bytes(memoryview(answer)[4:]))


def _connect(connection: socket.socket, state: str) -> None:
    path, folder = f"{state}/sock", -1
    try:
        if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
            folder = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            path = f"/proc/self/fd/{folder}/sock"
        connection.connect(path)  # Does not block on a Unix socket.
    finally:
        if folder >= 0:
            os.close(folder)


def _size(answer: bytearray) -> int:
    size = int.from_bytes(answer[:4], "big")
    if size > MAX_ANSWER_BYTES:
        raise NotAnAnswer(f"an answer of {size:,} bytes")
    return size


def context_fields(process: HostProcess, *, tty: bool) -> list[Field]:
    """Return the fields of a request that say what a command inherits on this host."""
    ignored, blocked, umask = _signals_and_umask()
    for number in (*_RESTORED, *(_TERMINAL if tty else ())):
        ignored &= ~(1 << (number - 1))
    return [
        *(("arg", word) for word in process.argv),
        *(("env", f"{name}={value}") for name, value in process.environment.items()),
        ("cwd", process.cwd),
        ("umask", umask),
        ("ignored", ignored),
        ("blocked", blocked),
        ("nice", os.getpriority(os.PRIO_PROCESS, 0)),
        *_rlimit_fields(tuple(map(resource.getrlimit, _RLIMITS))),
    ]


def _signals_and_umask() -> tuple[int, int, int]:
    status = dict(_STATUS.findall(Path("/proc/self/status").read_bytes()))
    return int(status[b"SigIgn"], 16), int(status[b"SigBlk"], 16), int(status[b"Umask"], 8)


@lru_cache(maxsize=4)  # They seldom change.
def _rlimit_fields(limits: tuple[tuple[int, int], ...]) -> list[Field]:
    # The kernel's "unlimited" is all ones; Python returns it as -1.
    return [
        ("rlimit", f"{number}:{soft & (2**64 - 1)}:{hard & (2**64 - 1)}")
        for number, (soft, hard) in zip(_RLIMITS, limits, strict=True)
    ]


async def stop_on_host(states: Sequence[str]) -> bool:
    """End all commands of the helpers with these state folders; return whether all are gone."""
    gone = True
    for state in states:
        # If a helper was killed and left commands, a new one takes them over.
        ours = await asyncio.to_thread(_is_ours, Path(state))
        try:
            program = await asyncio.to_thread(_program) if ours else ""
            helper = HostHelper(Installed(program=program, state=state))
            # Another user's helper is not started, and who answers for it is unknown: wait briefly.
            answer = await asyncio.wait_for(helper.ask("stop", [], boot=ours), _STOPPED_WITHIN_S)
        except (NotAnAnswer, OSError, Unusable, asyncio.TimeoutError) as error:
            logger.warning("the processes under %s could not be ended: %r", state, error)
            gone = False
        else:
            gone = gone and answer.word in ("done", "absent")
    return gone
