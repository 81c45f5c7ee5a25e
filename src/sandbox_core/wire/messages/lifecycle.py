"""Messages about a session as a whole: create, resume, start, stop, delete, ports."""

from __future__ import annotations

from pydantic import Field

from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages.base import (
    Message,
    SessionRef,
    SessionRequest,
    SessionSettings,
)


class CreateSessionRequest(Message):
    """Create a sandbox; the workflow makes the idempotency key `create_key` for this one create."""

    create_key: str
    epoch: int
    manifest: JsonObject | None = None
    snapshot: JsonObject | None = None
    options: JsonObject | None = None

    def summary(self) -> str:
        entries = (self.manifest or {}).get("entries")
        return f"{len(entries)} manifest entries" if isinstance(entries, dict) and entries else ""


class WorkflowRun(Message):
    """Names a run of a workflow."""

    workflow_id: str
    run_id: str


class ResumeSessionRequest(Message):
    """Attach to the sandbox of `state`, as epoch `epoch`.

    With `started`, its workspace is in use: it is kept as it is, or restored from its snapshot,
    or the answer is `SandboxLost`. `sandbox_id` is the backend's id that the workflow knows.
    `held_by` is the own queue of the worker that has held the session, on whose host the sandbox
    lives: only if that worker is gone, one in its place or on its host opens the session.
    `handle` tells the one who asks from others with the same session, if it has had it before.
    `owner` is the workflow whose end is that of the sandbox, if it is not the one that asks.
    """

    state: JsonObject
    epoch: int
    started: bool = False
    sandbox_id: str | None = None
    settings: SessionSettings | None = None
    held_by: str | None = None
    handle: str | None = None
    owner: WorkflowRun | None = None


class OpenSessionResponse(Message):
    """The session that `create_session` or `resume_session` opened on this worker.

    `state_delta` is against the state of the request (of a create: its manifest alone).
    """

    session: SessionRef
    state_delta: JsonObject = Field(default_factory=dict)
    supports_pty: bool = False
    sandbox_id: str | None = None
    worker_queue: str | None = None
    """The own queue of the worker that now holds the session."""

    host_bound: bool = False
    """The sandbox lives on that worker's host."""

    restored: bool = False
    """The sandbox was replaced, and its workspace restored from the last snapshot."""

    started: bool = False
    """Its workspace is in use: a start must keep it as it is."""

    handle: str | None = None
    """What the workflow sends along when it resumes the session again."""

    generation: int = 0
    """What the workflow may rely on: from 1 on, commands are ended before they are reported as
    cancelled, a terminal belongs to no worker, and a started session need not be asked whether it
    is running. Recorded with the session, so that a replay does as was done."""


class DeleteSessionRequest(SessionRequest):
    """Delete the sandbox; `state` is sent along when the worker does not hold the session.

    With `create_key` the workflow was never told of a session: whatever the create with this key
    has made is deleted.
    """

    create_key: str | None = None


class StartRequest(SessionRequest):
    """Start the session; with `started` its workspace is in use and is kept as it is."""

    started: bool = False


class StopRequest(SessionRequest):
    """End polled processes, also those of `users`, and write the workspace to its snapshot."""

    users: tuple[str, ...] = ()


class ShutdownRequest(SessionRequest):
    """Release the sandbox's resources."""


class StateResponse(Message):
    """The fields of the session state that the operation changed."""

    state_delta: JsonObject = Field(default_factory=dict)
    sandbox_id: str | None = None


class RunningRequest(SessionRequest):
    """Ask whether the sandbox is running."""


class RunningResponse(Message):
    """Whether the sandbox is running."""

    running: bool


class ResolveExposedPortRequest(SessionRequest):
    """Ask where a port of the sandbox can be reached."""

    port: int

    def summary(self) -> str:
        return str(self.port)


class ResolveExposedPortResponse(Message):
    """The SDK's `ExposedPortEndpoint`."""

    host: str
    port: int
    tls: bool = False
    query: str = ""


class PingRequest(Message):
    """Ask a worker whether it is there, at a queue of which nothing else is asked."""
