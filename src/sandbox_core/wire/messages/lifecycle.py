"""Messages for a session's lifecycle: create, resume, start, stop, delete, ports."""

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
    """Create a sandbox; the idempotency key `create_key` comes from the workflow."""

    create_key: str
    epoch: int
    manifest: JsonObject | None = None
    snapshot: JsonObject | None = None
    options: JsonObject | None = None

    def summary(self) -> str:
        entries = (self.manifest or {}).get("entries")
        return f"{len(entries)} manifest entries" if isinstance(entries, dict) and entries else ""


class WorkflowRun(Message):
    """A reference to a workflow run."""

    workflow_id: str
    run_id: str


class ResumeSessionRequest(Message):
    """Attach to the sandbox of `state`, as epoch `epoch`.

    `started` means that the workspace is in use: it is left untouched, restored from its snapshot,
    or `SandboxLost` is raised. `sandbox_id` is the backend's id known to the workflow. `held_by` is
    the own queue of the worker that held the session, on whose host the sandbox lives; another
    worker of that host opens the session only if that worker is gone. `handle` identifies the
    requesting handle among several of one session. `owner` is the workflow that owns the sandbox,
    if it is not the requesting one. `shut_down` means that the workflow has shut the session down:
    if the sandbox is gone, `SandboxLost` is raised and no other one is made.
    """

    state: JsonObject
    epoch: int
    started: bool = False
    sandbox_id: str | None = None
    settings: SessionSettings | None = None
    held_by: str | None = None
    handle: str | None = None
    owner: WorkflowRun | None = None
    shut_down: bool = False


class OpenSessionResponse(Message):
    """The session that `create_session` or `resume_session` opened on this worker.

    `state_delta` is relative to the request's state, for a create to its manifest.
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
    """The sandbox was replaced and its workspace restored from the last snapshot."""

    started: bool = False
    """The workspace is in use: a start must leave it untouched."""

    handle: str | None = None
    """Sent along when the workflow resumes the session again."""

    generation: int = 0
    """The worker's guarantees. From 1 on, commands have ended before they are reported as
    cancelled, any worker can poll a terminal, and a started session counts as running. Recorded
    with the session, so that a replay behaves the same."""

    retried_key: str | None = None
    """Identifies what the attempts at the request have made, if there was more than one: a worker
    that was given up may still be making a sandbox. See `DeleteSessionRequest`."""


class DeleteSessionRequest(SessionRequest):
    """Delete the sandbox; `state` is sent if the worker does not hold the session.

    With `create_key`, the workflow never received a session: everything that the create with this
    key made is deleted. `since` is when the workflow received the sandbox, as a Unix time.
    `retried_keys` are those of the responses that opened the session: what else was made for them
    is deleted, too.
    """

    create_key: str | None = None
    since: float | None = None
    retried_keys: tuple[str, ...] = ()


class StartRequest(SessionRequest):
    """Start the session; with `started`, the workspace is in use and is left untouched."""

    started: bool = False


class StopRequest(SessionRequest):
    """End polled processes, those of `users` included, and save the workspace to a snapshot.

    A `guest` uses another workflow's sandbox: it ends no processes.
    """

    users: tuple[str, ...] = ()
    guest: bool = False


class ShutdownRequest(SessionRequest):
    """Release the sandbox's resources, unless a `guest` asks, who uses another workflow's."""

    guest: bool = False


class StateResponse(Message):
    """The fields of the session state that the operation changed."""

    state_delta: JsonObject = Field(default_factory=dict)
    sandbox_id: str | None = None


class RunningRequest(SessionRequest):
    """Return whether the sandbox is running."""


class RunningResponse(Message):
    """Whether the sandbox is running."""

    running: bool


class ResolveExposedPortRequest(SessionRequest):
    """Return the endpoint at which a port of the sandbox can be reached."""

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
    """Ask a worker whether it is alive, on a queue of its own."""
