"""Puts the helper into a sandbox through the session's own `exec`, once per sandbox.

``install.sh`` looks for the helper where an earlier worker may have put it. If it is not there,
the script finds a folder that belongs to the user and can execute programs, and receives the
helper in pieces that fit on a command line. The file is verified before it gets its name, a hash
of its content. Concurrent installations do no harm.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from agents.sandbox.errors import ExecTransportError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession

from sandbox_core.worker.commands.binaries import Binary, binary_for
from sandbox_core.worker.commands.protocol import VERSION

logger = logging.getLogger(__name__)

BASES = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - private folders are made there
"""Where the helper and its state may be, in order of preference; then beside the workspace."""

SAYS = f"sandbox-helper {VERSION} "
"""The beginning of the helper's answer to ``--version``."""

_NO_ROOM = "no-room-in-any-writable-directory"

# Some backends join a command line into one argument, for which Linux allows 128 KiB.
_PIECE_BYTES = {"base64": 72 * 1024, "octal": 24 * 1024}


class Unusable(Exception):
    """The helper cannot run in a sandbox; the message says why.

    Args:
        why: The reason, in a few words.
        lasting: Whether the reason stays; if not, the next command tries again.
    """

    def __init__(self, why: str, *, lasting: bool = True) -> None:
        super().__init__(why)
        self.lasting = lasting


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The paths of the helper and of its state in a sandbox, for one user."""

    program: str
    state: str
    used: bool = True
    """Whether the state existed before."""


def state_id(session: BaseSandboxSession) -> str:
    """Return the name of a session's helper state, made of its workspace's path and its id."""
    return f"{root_id(session.state.manifest.root)}-{session.state.session_id.hex}"


def root_id(root: str) -> str:
    """Return the common prefix of the `state_id`s of all sessions with this workspace."""
    return hashlib.sha256(root.encode()).hexdigest()[:12]


def bases(session: BaseSandboxSession) -> list[str]:
    """Return the folders for the helper and its state of a session, in order of preference."""
    beside = str(PurePosixPath(session.state.manifest.root).parent)
    usable = beside not in ("/", *BASES) and not any(character.isspace() for character in beside)
    return [*BASES, beside] if usable else list(BASES)


async def install(
    session: BaseSandboxSession, user: str | None, *, upload: bool = True
) -> Installed:
    """Find the helper in the sandbox of a session, or put it there.

    Args:
        session: The backend's own session.
        user: The user whose commands it runs; None for the backend's default.
        upload: Whether to put it there; otherwise only its state is looked for.

    Raises:
        Unusable: It cannot run there.
        SandboxError: The backend failed.
    """
    # The sandbox reports its architecture in the first answer; most have the worker's.
    expected = binary_for("", "")
    found = await _find(session, user, expected)
    binary = binary_for(found["system"], found["machine"])
    if binary is None:
        raise Unusable(f"there is none for {found['system']} on {found['machine']}")
    if binary is not expected:
        found = await _find(session, user, binary)
    state, used = found["state"], found["used"] == "yes"
    others, problems = bases(session), list[Unusable]()
    while upload and not found["helper"]:
        problem = await _upload(session, user, binary, found)
        if problem is None:
            break
        problems.append(problem)
        others.remove(str(PurePosixPath(found["place"]).parent))
        if not others:
            raise _foremost(problems)
        logger.debug("%s; another folder is tried", problem)
        try:
            found = await _find(session, user, binary, others)
        except Unusable as error:
            raise _foremost([*problems, error]) from None
    program = found["helper"] or f"{found['place']}/{binary.name}"
    return Installed(program=program, state=state, used=used)


def _foremost(problems: Sequence[Unusable]) -> Unusable:
    """Return the first problem that may pass, which is tried again; otherwise the first."""
    return min(problems, key=lambda problem: problem.lasting)


async def _find(
    session: BaseSandboxSession,
    user: str | None,
    binary: Binary | None,
    places: Sequence[str] | None = None,
) -> dict[str, str]:
    name = "none" if binary is None else binary.name
    places = bases(session) if places is None else places
    word, found = await _ask(session, user, "find", name, state_id(session), SAYS, *places)
    if word == "unusable":
        why = found.get("why", "")
        raise Unusable(why.replace("-", " "), lasting=why != _NO_ROOM)
    if word != "found":
        if not await session.running():
            raise ExecTransportError(command=("sh",), context={"reason": "not_running"})
        if _is_missing(found):
            raise Unusable("the sandbox has no POSIX shell")
        # For example the shell cannot fork, or the engine itself does not get a thread there.
        raise Unusable("no process can be started there", lasting=False)
    return found


def _is_missing(said: Mapping[str, str]) -> bool:
    """Whether a call whose shell did not answer ended because there is no shell."""
    texts = ("no such file", "not found", "permission denied")
    return said.get("code") in ("126", "127") and any(
        text in said.get("text", "").lower() for text in texts
    )


async def _upload(
    session: BaseSandboxSession, user: str | None, binary: Binary, found: dict[str, str]
) -> Unusable | None:
    """Put the helper into the `found` place; return the problem if that fails."""
    # A name that nobody else uses.
    file = f"{found['place']}/{secrets.token_hex(8)}"
    encoding = "base64" if found["base64"] == "yes" else "octal"
    for piece in _encoded(binary.content, encoding):
        word, _ = await _ask(session, user, "add", file, encoding, piece)
        if word != "added":
            return Unusable(f"there is no room for it in {found['place']}", lasting=False)
    word, _ = await _ask(session, user, "put", file, binary.name, str(len(binary.content)), SAYS)
    if word != "put":
        return Unusable(f"it does not run in {found['place']}")
    logger.debug("the helper was put into %s of a sandbox", found["place"])
    return None


def _encoded(content: bytes, encoding: str) -> Iterator[str]:
    size = _PIECE_BYTES[encoding]
    for start in range(0, len(content), size):
        piece = content[start : start + size]
        if encoding == "base64":
            yield base64.b64encode(piece).decode("ascii")
        else:
            yield "".join(f"\\{byte:03o}" for byte in piece)


async def _ask(
    session: BaseSandboxSession, user: str | None, verb: str, *arguments: str
) -> tuple[str, dict[str, str]]:
    """Call the script once and return its answer; if it gave none, "" and how the call ended."""
    mark = secrets.token_hex(8)
    result = await session.exec(
        "/bin/sh", "-c", _script(), "sh", mark, verb, *arguments, shell=False, user=user
    )
    _, answered, rest = result.stdout.rpartition(mark.encode() + b" ")
    if not answered:
        text = (result.stdout + result.stderr).decode("utf-8", "replace")
        return "", {"code": str(result.exit_code), "text": text}
    word, *pairs = rest.partition(b"\n")[0].decode("utf-8", "replace").split(" ")
    return word, {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


@cache
def _script() -> str:
    text = files(__package__).joinpath("install.sh").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))
