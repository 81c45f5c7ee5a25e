"""Request and response models of the operations on sessions, and how bytes travel.

A request or a response crosses the wire as the plain JSON object of its model with the defaults
left out, so that any data converter carries it unchanged; a changed default is therefore a changed
contract. Models ignore fields that they do not know: an old worker understands a newer workflow.

Bytes that are data (a file, an archive, a workspace) are not in the model: they are the second
argument of the activity, or its whole result, raw. Output of commands is text where it is valid
UTF-8, so that the Temporal UI can show it.
"""

from __future__ import annotations

import base64
import shlex
from typing import Annotated

from agents.run_config import (
    DEFAULT_MAX_LOCAL_DIR_FILE_CONCURRENCY,
    DEFAULT_MAX_MANIFEST_ENTRY_CONCURRENCY,
)
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, PlainSerializer

from sandbox_core.wire.agents_models import JsonObject


def _decode_output(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, dict):
        return base64.b64decode(value["base64"])
    return value


def _encode_output(value: bytes) -> JsonValue:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode("ascii")}


Output = Annotated[bytes, BeforeValidator(_decode_output), PlainSerializer(_encode_output)]
"""Bytes that are mostly text: a JSON string where they are UTF-8, ``{"base64": ...}`` elsewhere."""


class Message(BaseModel):
    """Base of everything that crosses the wire as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def dump(self) -> JsonObject:
        """Return the plain JSON object that travels."""
        data: JsonObject = self.model_dump(mode="json", exclude_defaults=True)
        return data

    def summary(self) -> str:
        """Return what the Temporal UI shows after the operation's name; may be empty."""
        return ""


class SessionRef(Message):
    """Names a session on the worker that holds it."""

    session_id: str
    epoch: int
    """Later with every resume; a handle of an earlier epoch is stale and is not used."""


class ArchiveLimits(Message):
    """The SDK's `SandboxArchiveLimits`, in bytes and members; None means unlimited."""

    max_input_bytes: int | None = None
    max_extracted_bytes: int | None = None
    max_members: int | None = None


class SessionSettings(Message):
    """What the SDK's runtime configures on a session after it has been created."""

    manifest_entries: int | None = DEFAULT_MAX_MANIFEST_ENTRY_CONCURRENCY
    local_dir_files: int | None = DEFAULT_MAX_LOCAL_DIR_FILE_CONCURRENCY
    archive_limits: ArchiveLimits | None = None
    persist_skip_paths: tuple[str, ...] = ()


class SessionRequest(Message):
    """Base of the requests to an open session.

    `state` and `settings` are present when the workflow has changed them since the worker was last
    told, and otherwise absent: an operation costs its own size, not that of the manifest.
    """

    session: SessionRef
    state: JsonObject | None = None
    settings: SessionSettings | None = None


class PathRequest(SessionRequest):
    """Base of the requests about one path of the workspace, as the named user."""

    path: str
    user: str | None = None

    def summary(self) -> str:
        return self.path


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


class KeyedRequest(SessionRequest):
    """Base of the requests that must not be carried out twice.

    `operation_id` is made in the workflow, and the same in each attempt. With `repeated` an earlier
    attempt at it may have been carried out, by a worker that is known to no other.
    """

    operation_id: str
    repeated: bool = False


class CommandRequest(KeyedRequest):
    """Base of the requests that run a command.

    `timeout` is in seconds; None means none. `shell` is the SDK's: True for the backend's default
    shell, False for none, or the words before the command.
    """

    command: tuple[str, ...]
    timeout: float | None = None
    shell: bool | tuple[str, ...] = True
    user: str | None = None

    def summary(self) -> str:
        return self.command[0] if len(self.command) == 1 else shlex.join(self.command)


class ExecRequest(CommandRequest):
    """Run a command to its end."""


class ExecResponse(Message):
    """What a command wrote and its exit code.

    `at_most_once` is why the sandbox cannot tell whether a command was run before, if it cannot.
    """

    stdout: Output = b""
    stderr: Output = b""
    exit_code: int = 0
    at_most_once: str | None = None


class PtyExecStartRequest(CommandRequest):
    """Start a command and answer with what it wrote within `yield_time_s` seconds."""

    tty: bool = False
    yield_time_s: float | None = None
    max_output_tokens: int | None = None


class PtyWriteStdinRequest(KeyedRequest):
    """Write `chars` to a running process (may be empty), and answer with its output.

    The output is what comes after `offset` bytes, those that the workflow has been given. `user`
    is whose process it is. With `ended` the workflow was told that it has ended.
    """

    process_id: int
    chars: str = ""
    yield_time_s: float | None = None
    max_output_tokens: int | None = None
    offset: int = 0
    user: str | None = None
    ended: bool = False

    def summary(self) -> str:
        return f"{self.process_id} {self.chars!r}" if self.chars else f"{self.process_id}"


class PtyResponse(Message):
    """New output of a process; `process_id` is None once it has ended.

    `offset` is where the output goes on, in bytes from its beginning; None if the process is of
    the one worker that has started it. `at_most_once` is as in `ExecResponse`.
    """

    process_id: int | None = None
    output: Output = b""
    exit_code: int | None = None
    original_token_count: int | None = None
    offset: int | None = None
    at_most_once: str | None = None


class PtyResizeRequest(SessionRequest):
    """Set the size of a process's terminal, in characters."""

    process_id: int
    rows: int
    columns: int
    user: str | None = None

    def summary(self) -> str:
        return f"{self.process_id} {self.rows}x{self.columns}"


class PtyTerminateAllRequest(SessionRequest):
    """End every process that was started with `pty_exec_start`, also as these `users`."""

    users: tuple[str, ...] = ()


class ReadRequest(PathRequest):
    """Read a file, or with `max_bytes` the first of them; the answer is its bytes."""

    max_bytes: int | None = None


class WriteRequest(PathRequest):
    """Write a file, with `new` only one that is not there; the bytes are the second argument."""

    new: bool = False


class LsRequest(PathRequest):
    """List a directory."""


class DirectoryEntry(Message):
    """One entry of a directory; `permissions` are the SDK's bits (3 a role), `size` is in bytes."""

    path: str
    kind: str
    owner: str
    group: str
    size: int
    permissions: JsonObject


class LsResponse(Message):
    """The entries of a directory, in the backend's order."""

    entries: tuple[DirectoryEntry, ...] = ()


class MkdirRequest(PathRequest):
    """Make a directory."""

    parents: bool = False


class RmRequest(PathRequest):
    """Remove a file, or with `recursive` a directory."""

    recursive: bool = False


class MoveRequest(SessionRequest):
    """Rename a regular file or a symlink, in the place of a file or a symlink that is there."""

    source: str
    destination: str
    user: str | None = None

    def summary(self) -> str:
        return f"{self.source} to {self.destination}"


class SameFileRequest(SessionRequest):
    """Ask whether two paths name one file; without `follow_symlinks`, a symlink never does."""

    left: str
    right: str
    follow_symlinks: bool = True
    user: str | None = None

    def summary(self) -> str:
        return f"{self.left} and {self.right}"


class SameFileResponse(Message):
    """Whether they do."""

    same: bool


class ExtractRequest(PathRequest):
    """Extract an archive (the second argument) at a path."""

    compression_scheme: str | None = None
    archive_limits: ArchiveLimits | None = None


class ValidatePathAccessRequest(PathRequest):
    """Check a path against the sandbox's real file system, symlinks included."""

    for_write: bool = False


class ValidatePathAccessResponse(Message):
    """The normalised path."""

    path: str


class PatchOperation(Message):
    """The SDK's `ApplyPatchOperation`."""

    type: str
    path: str
    diff: str | None = None
    move_to: str | None = None


class ApplyPatchRequest(SessionRequest):
    """Apply patch operations, in order, as the named user; `cwd` anchors relative paths."""

    operations: tuple[PatchOperation, ...]
    user: str | None = None
    cwd: str | None = None

    def summary(self) -> str:
        return " ".join(operation.path for operation in self.operations)


class ApplyPatchResponse(Message):
    """What the SDK's editor answered to each operation."""

    outputs: tuple[str, ...] = ()


class SkillsRequest(SessionRequest):
    """Base of the requests about skills in a folder of the worker's disk.

    `source` is the SDK's `LocalDir` entry; `skills_path` is where in the workspace they go.
    """

    source: JsonObject
    skills_path: str


class ListSkillsRequest(SkillsRequest):
    """List the skills of a folder of the worker's disk, which are loaded when they are needed."""

    def summary(self) -> str:
        return str(self.source.get("src", ""))


class ListedSkill(Message):
    """The SDK's `SkillMetadata`."""

    name: str
    description: str
    path: str


class ListSkillsResponse(Message):
    """What the SDK tells the model of each skill, in its order."""

    skills: tuple[ListedSkill, ...] = ()


class LoadSkillRequest(SkillsRequest):
    """Copy one skill from the worker's disk into the workspace, unless it is there already."""

    skill_name: str
    user: str | None = None

    def summary(self) -> str:
        return self.skill_name


class LoadSkillResponse(Message):
    """What the SDK tells the model of the skill: "loaded" or "already_loaded", and where it is."""

    status: str
    skill_name: str
    path: str


class ApplyManifestRequest(SessionRequest):
    """Materialize the manifest of the session, or only its ephemeral entries."""

    only_ephemeral: bool = False


class PlacedEntry(Message):
    """A manifest entry and the absolute path in the sandbox where it goes."""

    path: str
    entry: JsonObject


class ApplyEntriesRequest(SessionRequest):
    """Materialize some entries."""

    entries: tuple[PlacedEntry, ...]

    def summary(self) -> str:
        return f"{len(self.entries)} entries"


class WrittenFile(Message):
    """A file that was copied from the worker's disk, and its SHA-256 in hexadecimal."""

    path: str
    sha256: str


class MaterializationResponse(Message):
    """The files that were copied from the worker's disk."""

    files: tuple[WrittenFile, ...] = ()


class PersistWorkspaceRequest(SessionRequest):
    """Archive the workspace; the answer is the archive's bytes."""


class HydrateWorkspaceRequest(SessionRequest):
    """Fill the workspace from an archive, the second argument."""


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
