"""THE table of operations: one row each, and nothing else in the tree lists them.

The name is a part of the activity type and is recorded in histories. The effect decides how often
an operation may be attempted; see `Effect`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar, cast

from sandbox_core.wire import messages as m

RequestT = TypeVar("RequestT", bound=m.Message)
ResponseT = TypeVar("ResponseT", bound="m.Message | bytes | None")


class Effect(Enum):
    """What a second attempt at an operation does to the sandbox."""

    READ = "read"
    """Changes nothing: repeated freely."""

    IDEMPOTENT = "idempotent"
    """Repeating it ends in the same state: repeated freely."""

    KEYED = "keyed"
    """The request carries a key by which a repetition is recognised."""

    ONCE = "once"
    """Never repeated once it may have started; then it may raise `OutcomeUnknown`."""


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[RequestT, ResponseT]):
    """One row: an operation's name, request, response and effect."""

    name: str
    request: type[RequestT]
    response: type[ResponseT]
    """A message, `bytes` for raw data, or `NoneType`."""

    effect: Effect
    takes_bytes: bool = False
    """Raw data is sent as the second argument."""

    duration: Callable[[RequestT], float | None] = lambda request: None
    """The duration in seconds that the request asks for; lengthens the start-to-close timeout."""


_TABLE: dict[str, Operation[m.Message, m.Message | bytes | None]] = {}


def operations() -> Iterator[Operation[m.Message, m.Message | bytes | None]]:
    """Iterate over every operation, in the order of the table."""
    return iter(_TABLE.values())


def _row(
    name: str,
    request: type[RequestT],
    response: type[ResponseT],
    effect: Effect,
    *,
    takes_bytes: bool = False,
    duration: Callable[[RequestT], float | None] = lambda request: None,
) -> Operation[RequestT, ResponseT]:
    operation = Operation(
        name=name,
        request=request,
        response=response,
        effect=effect,
        takes_bytes=takes_bytes,
        duration=duration,
    )
    _TABLE[name] = cast("Operation[m.Message, m.Message | bytes | None]", operation)
    return operation


_NONE = type(None)
_READ, _IDEMPOTENT, _KEYED, _ONCE = Effect

# Lifecycle.
CREATE_SESSION = _row("create_session", m.CreateSessionRequest, m.OpenSessionResponse, _KEYED)
RESUME_SESSION = _row("resume_session", m.ResumeSessionRequest, m.OpenSessionResponse, _IDEMPOTENT)
DELETE_SESSION = _row("delete_session", m.DeleteSessionRequest, m.StateResponse, _IDEMPOTENT)
START = _row("start", m.StartRequest, m.StateResponse, _IDEMPOTENT)
STOP = _row("stop", m.StopRequest, m.StateResponse, _IDEMPOTENT)
SHUTDOWN = _row("shutdown", m.ShutdownRequest, m.StateResponse, _IDEMPOTENT)
RUNNING = _row("running", m.RunningRequest, m.RunningResponse, _READ)

# Commands.
EXEC = _row("exec", m.ExecRequest, m.ExecResponse, _KEYED, duration=lambda request: request.timeout)
PTY_EXEC_START = _row(
    "pty_exec_start",
    m.PtyExecStartRequest,
    m.PtyResponse,
    _KEYED,
    duration=lambda request: request.yield_time_s,
)
PTY_WRITE_STDIN = _row(
    "pty_write_stdin",
    m.PtyWriteStdinRequest,
    m.PtyResponse,
    _KEYED,
    duration=lambda request: request.yield_time_s,
)
PTY_RESIZE = _row("pty_resize", m.PtyResizeRequest, _NONE, _IDEMPOTENT)
PTY_TERMINATE_ALL = _row("pty_terminate_all", m.PtyTerminateAllRequest, _NONE, _IDEMPOTENT)

# Files.
READ = _row("read", m.ReadRequest, bytes, _READ)
WRITE = _row("write", m.WriteRequest, _NONE, _IDEMPOTENT, takes_bytes=True)
LS = _row("ls", m.LsRequest, m.LsResponse, _READ)
MKDIR = _row("mkdir", m.MkdirRequest, _NONE, _IDEMPOTENT)
RM = _row("rm", m.RmRequest, _NONE, _IDEMPOTENT)
MOVE = _row("move", m.MoveRequest, _NONE, _IDEMPOTENT)
SAME_FILE = _row("same_file", m.SameFileRequest, m.SameFileResponse, _READ)
EXTRACT = _row("extract", m.ExtractRequest, _NONE, _IDEMPOTENT, takes_bytes=True)
VALIDATE_PATH_ACCESS = _row(
    "validate_path_access", m.ValidatePathAccessRequest, m.ValidatePathAccessResponse, _READ
)
APPLY_PATCH = _row("apply_patch", m.ApplyPatchRequest, m.ApplyPatchResponse, _ONCE)
LIST_SKILLS = _row("list_skills", m.ListSkillsRequest, m.ListSkillsResponse, _READ)
LOAD_SKILL = _row("load_skill", m.LoadSkillRequest, m.LoadSkillResponse, _IDEMPOTENT)

# The workspace as a whole.
APPLY_MANIFEST = _row(
    "apply_manifest", m.ApplyManifestRequest, m.MaterializationResponse, _IDEMPOTENT
)
APPLY_ENTRIES = _row("apply_entries", m.ApplyEntriesRequest, m.MaterializationResponse, _IDEMPOTENT)
PERSIST_WORKSPACE = _row("persist_workspace", m.PersistWorkspaceRequest, bytes, _READ)
HYDRATE_WORKSPACE = _row(
    "hydrate_workspace", m.HydrateWorkspaceRequest, _NONE, _IDEMPOTENT, takes_bytes=True
)
RESOLVE_EXPOSED_PORT = _row(
    "resolve_exposed_port", m.ResolveExposedPortRequest, m.ResolveExposedPortResponse, _READ
)

# A worker, which is pinged before its sessions are given up.
PING = _row("ping", m.PingRequest, _NONE, _READ)

# For those who do not own the session.
INSPECT = _row("inspect", m.InspectRequest, m.InspectResponse, _READ)

# The sandboxes of all workflows of a namespace.
REAP = _row("reap", m.ReapRequest, m.ReapResponse, _IDEMPOTENT)
