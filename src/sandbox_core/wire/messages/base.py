"""The base classes of messages."""

from __future__ import annotations

import base64
import re
from typing import Annotated

from agents.run_config import (
    DEFAULT_MAX_LOCAL_DIR_FILE_CONCURRENCY,
    DEFAULT_MAX_MANIFEST_ENTRY_CONCURRENCY,
)
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    JsonValue,
    PlainSerializer,
    ValidationError,
)

from sandbox_core.errors import InvalidRequest, SandboxCoreError
from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.strict import Explained, mistakes

_CAPITAL = re.compile("(?<!^)(?=[A-Z])")


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
"""Bytes, as a JSON string if they are valid UTF-8, otherwise as ``{"base64": ...}``."""


class Message(BaseModel):
    """Base of everything that is sent as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def dump(self) -> JsonObject:
        """Return the JSON object to send."""
        data: JsonObject = self.model_dump(mode="json", exclude_defaults=True)
        return data

    def summary(self) -> str:
        """Return the text that the Temporal UI shows after the operation's name; may be empty."""
        return ""

    def content_bytes(self) -> int:
        """Return the size of the sandbox's data in it: input, output or files, without the rest."""
        return 0


class SessionRef(Message):
    """A reference to a session on the worker that holds it."""

    session_id: str
    epoch: int
    """Grows with every resume; a handle with an earlier epoch is stale."""


class ArchiveLimits(Message):
    """The SDK's `SandboxArchiveLimits`, in bytes and members; None means unlimited."""

    max_input_bytes: int | None = None
    max_extracted_bytes: int | None = None
    max_members: int | None = None


class SessionSettings(Message):
    """What the SDK's runtime configures on a session after creating it."""

    manifest_entries: int | None = DEFAULT_MAX_MANIFEST_ENTRY_CONCURRENCY
    local_dir_files: int | None = DEFAULT_MAX_LOCAL_DIR_FILE_CONCURRENCY
    archive_limits: ArchiveLimits | None = None
    persist_skip_paths: tuple[str, ...] = ()


class SessionRequest(Explained, Message):
    """Base of the requests to an open session.

    `state` and `settings` are present only if the workflow changed them since the last request, so
    that an operation does not carry the manifest each time.

    An argument of the wrong type raises `InvalidRequest`.
    """

    session: SessionRef
    state: JsonObject | None = None
    settings: SessionSettings | None = None

    @classmethod
    def _error_for(cls, error: ValidationError) -> SandboxCoreError:
        name = _CAPITAL.sub("_", cls.__name__.removesuffix("Request")).lower()
        return InvalidRequest(mistakes(cls, error, name))


class PathRequest(SessionRequest):
    """Base of the requests about one path of the workspace."""

    path: str
    user: str | None = None

    def summary(self) -> str:
        return self.path


class KeyedRequest(SessionRequest):
    """Base of the requests that must not be carried out twice.

    `operation_id` is created in the workflow and the same in every attempt. `repeated` means that a
    worker that is gone may have carried out an earlier attempt.
    """

    operation_id: str
    repeated: bool = False
