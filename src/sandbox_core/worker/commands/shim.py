"""The shim in a sandbox: how it is called, and when the command that it runs is ended.

``shim.sh`` answers one request a call, ``runner.sh`` runs one command; what they keep is described
there. See `sandbox_core.worker.commands.processes` for what they are for.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TypeVar
from urllib.parse import quote

from agents.sandbox.errors import ExecFailureError, ExecTransportError, SandboxError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from sandbox_core.worker.attempts import overdue, uncancellable

logger = logging.getLogger(__name__)

_ResultT = TypeVar("_ResultT")

FOLDER = "/tmp/.sandbox-core-"  # noqa: S108 (private, and refused if it is not the user's own)
"""How the paths of the folders with records begin; the session id follows."""

KILL_S = 10.0
"""How long ending a command may take before its timeout or cancellation is reported anyway."""

_GRACE_S = 5.0
"""How long the call that ran an ended command may take to notice."""

_ANSWER_S = 5.0
"""How long Temporal may take to say whether an activity will be attempted again."""


def _script(name: str) -> str:
    lines = (
        line.strip()
        for line in files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()
    )
    return "\n".join(line for line in lines if line and (line[0] != "#" or line.startswith("##")))


RUNNER = _script("runner.sh")
SHIM = _script("shim.sh")
# Most calls run a command to its end, and parsing the rest would take a quarter of a millisecond.
_SHIM_RUN = re.sub(r"(?ms)^## processes$.*?^##$\n", "", SHIM)


_PRUNE = 4
"""Which argument of ``run`` says whether it is to prune records."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the shim said, and the call's result without it; no words if it said nothing."""

    words: tuple[str, ...]
    result: ExecResult

    @property
    def word(self) -> str:
        return self.words[0] if self.words else ""


@dataclass(frozen=True, kw_only=True)
class Shim:
    """The shim in the sandbox of a session, as one user of it."""

    session: SandboxSession
    user: str | None = None
    argv: Sequence[str] = ()
    """The command that the calls are about, if they are about one."""

    @property
    def folder(self) -> str:
        """Where the records of all users begin."""
        return f"{FOLDER}{self.session.state.session_id}"

    @property
    def own_folder(self) -> str:
        """Where this user's records are."""
        return self.folder if self.user is None else f"{self.folder}-{quote(self.user, safe='')}"

    @property
    def root(self) -> str:
        # The local backend rewrites arguments that are paths of the workspace; not this one.
        return f"={self.session.state.manifest.root}"

    async def ask(self, verb: str, folder: str, mark: str, *arguments: str) -> Answer:
        """Make one call to the shim.

        Raises:
            SandboxError: The backend could not make the call, or lost its answer.
        """
        # The local backend changes directory within commands that begin with "sh" and by itself
        # before others, which a command can see in OLDPWD. So that it sees the same here:
        shell = "sh" if self.argv[:1] == ["sh"] else "/bin/sh"
        mark = f"[sandbox-core {verb} {mark}]"
        inner = self.session._inner
        script = _SHIM_RUN if verb == "run" and arguments[_PRUNE] == "-" else SHIM
        words = (shell, "-c", script, "sh", verb, mark, folder, *arguments)
        try:
            result = await inner.exec(*words, shell=False, user=self.user)
        except ExecFailureError as error:
            # About the command that was asked for, not about the shim around it.
            error.command = tuple(self.argv) or ("sandbox-core", verb)
            error.context.update(command=error.command, command_str=shlex.join(error.command))
            if error.retryable is None and isinstance(error.cause, FileNotFoundError):
                error.retryable = False  # There is no sh, or no sudo: nothing has run.
            raise
        return _parse(result, mark.encode(), first=verb == "run")

    async def works(self) -> bool:
        """Return whether the sandbox has a shell at all.

        Raises:
            ExecTransportError: It has none any more, because it does not run.
        """
        said = await self.session._inner.exec("sh", "-c", "echo works", shell=False)
        if b"works" in said.stdout:
            return True
        if await self.session.running():
            return False
        raise ExecTransportError(command=self.argv, context={"reason": "not_running"})


def _parse(result: ExecResult, mark: bytes, *, first: bool) -> Answer:
    """Take the shim's line out of a call's result; an output that was cut short is no answer."""
    nothing = Answer(words=(), result=result)
    if first:
        before, found, rest = result.stdout.partition(mark)
        line, _, output = rest.partition(b"\n")
        words = tuple(line.decode("utf-8", errors="replace").split())
        if words[:1] == ("exit",):
            output, ended, _ = output.rpartition(mark + b" end")
            if not ended:
                return nothing
        output = before + output
    else:
        output, found, rest = result.stdout.rpartition(mark)
        words = tuple(rest.decode("utf-8", errors="replace").split())
    if not found:
        return nothing
    return Answer(
        words=words,
        result=ExecResult(stdout=output, stderr=result.stderr, exit_code=result.exit_code),
    )


class Overdue(Exception):
    """The deadline of a call has passed; its command was ended, or has come to its own end."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__()
        self.ended = ended


async def until(
    deadline: float | None, call: Awaitable[_ResultT], *, end: Callable[[str], Awaitable[bool]]
) -> _ResultT:
    """Await `call`; if it is cancelled, end its command unless another attempt attaches to it.

    Raises:
        Overdue: The deadline, in the event loop's time, has passed, and `end` was called.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(call)
    try:
        left = None if deadline is None else max(0.0, deadline - loop.time())
        await asyncio.wait({task}, timeout=left)
        if task.done():
            return task.result()
        ended = await end("timeout")
        await asyncio.wait({task}, timeout=_GRACE_S)
        raise Overdue(ended=ended)
    except asyncio.CancelledError:
        if not await to_be_left_running():
            await uncancellable(end("cancelled"))
            await uncancellable(asyncio.wait({task}, timeout=_GRACE_S))
        raise
    finally:
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def end_command(shim: Shim, operation_id: str, reason: str) -> bool:
    """End a command and all its descendants; False if it had come to its own end already."""
    try:
        answer = await asyncio.wait_for(
            shim.ask("kill", shim.own_folder, operation_id, operation_id, shim.root, reason),
            timeout=KILL_S,
        )
    except (asyncio.TimeoutError, SandboxError) as error:
        logger.warning("a command (%s) could not be ended in its sandbox: %s", reason, error)
        return True
    return answer.word != "finished"


async def to_be_left_running() -> bool:
    """Return whether the command of the current, cancelled activity belongs to another attempt.

    It does if this worker is shutting down, or the activity was paused or reset; and if Temporal
    has given it up because it heard nothing from this worker for too long, and will ask, or has
    asked, another one. It does not if the workflow cancelled it or is closed, or if it was given
    more than its start-to-close timeout.
    """
    if not activity.in_activity():
        return False
    why = activity.cancellation_details()
    if why is not None and why.cancel_requested:
        return False
    if activity.is_worker_shutdown() or (
        why is not None and (why.worker_shutdown or why.paused or why.reset)
    ):
        return True
    if why is None or overdue():
        return False
    try:
        return await asyncio.wait_for(_pending(), timeout=_ANSWER_S)
    except (RPCError, asyncio.TimeoutError):
        return True  # Nobody knows: another attempt would miss it, an orphan is only found later.


async def _pending() -> bool:
    info = activity.info()
    handle = activity.client().get_workflow_handle(
        info.workflow_id or "", run_id=info.workflow_run_id
    )
    described = await handle.describe()
    # A closed workflow's activities are shown as pending too.
    return described.status is WorkflowExecutionStatus.RUNNING and any(
        pending.activity_id == info.activity_id
        for pending in described.raw_description.pending_activities
    )
