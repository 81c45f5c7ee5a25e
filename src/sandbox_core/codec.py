"""How the SDK's own models become plain JSON and back.

Manifests, session states, client options and snapshots are made and registered by the Agents SDK
and by providers. They cross the wire as the JSON objects that their own serializers produce, so
that no discriminator depends on the data converter. Two things pydantic's JSON cannot carry are
added here: file contents that are not UTF-8, and the difference between two states.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

from agents.sandbox import Manifest
from agents.sandbox._mount_security import _manifest_has_configured_mount_authority
from agents.sandbox.entries import BaseEntry, Dir, File
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec, SnapshotSpecUnion
from pydantic import BaseModel, JsonValue, TypeAdapter

from sandbox_core.errors import InvalidRequest, UnknownProvider

JsonObject = dict[str, JsonValue]
_PathT = TypeVar("_PathT", bound=str | Path)

_BINARY = b"data:application/octet-stream;base64,"
_SNAPSHOT_SPEC: TypeAdapter[SnapshotSpec] = TypeAdapter(SnapshotSpecUnion)


def dump_manifest(manifest: Manifest) -> JsonObject:
    """Return `manifest` as JSON, with binary file contents as data URLs.

    Raises:
        InvalidRequest: A path grant has a ``host_path``, which would be written in plain text into
            the workflow's history and would name a path of another machine; or a mount has
            credentials, which would be there for everyone to read.
    """
    if _manifest_has_configured_mount_authority(manifest):
        raise InvalidRequest(
            "the manifest has a cloud mount with credentials: a workflow's history is no place for "
            "them. Mount in the sandbox, with a credential from the worker's environment "
            "(sandbox_core.workflow.WorkerEnv), or give the sandbox an identity of its own."
        )
    bound = [grant.path for grant in manifest.extra_path_grants if grant.host_path is not None]
    if bound:
        raise InvalidRequest(
            f"the manifest grants {', '.join(bound)} with a host_path: a workflow cannot name "
            f"paths of a worker's host. Remove host_path from these grants."
        )
    return _dump(_with_contents(manifest, _encode_content))


def load_manifest(data: JsonObject) -> Manifest:
    """Return the manifest that `dump_manifest` made `data` from."""
    return _with_contents(Manifest.model_validate(data), _decode_content)


def dump_entry(entry: BaseEntry) -> JsonObject:
    """Return one manifest entry as JSON."""
    return _dump(_entry_with_contents(entry, _encode_content))


def load_entry(data: JsonObject) -> BaseEntry:
    """Return the entry that `dump_entry` made `data` from."""
    return _entry_with_contents(BaseEntry.parse(data), _decode_content)


def dump_state(state: SandboxSessionState) -> JsonObject:
    """Return a session state as JSON, discriminators included."""
    return _dump(with_encoded_contents(state))


def with_encoded_contents(state: SandboxSessionState) -> SandboxSessionState:
    """Return `state` with binary file contents of its manifest as data URLs, which are text."""
    encoded = _with_contents(state.manifest, _encode_content)
    return state if encoded is state.manifest else state.model_copy(update={"manifest": encoded})


def load_state(data: JsonObject) -> SandboxSessionState:
    """Return the session state of the registered class that `data` names.

    Raises:
        UnknownProvider: No provider that is loaded here has registered that class.
    """
    if data.get("type") not in SandboxSessionState._subclass_registry:
        # The SDK's own error does not say which.
        raise UnknownProvider(
            f"no provider that is loaded here has session states of type {data.get('type')!r}: "
            f"install it, and give this worker SandboxPlugin(), with register_activities=False if "
            f"it only runs workflows."
        )
    # The SDK empties a payload that does not validate, hence the copy.
    state = SandboxSessionState.parse(dict(data))
    decoded = _with_contents(state.manifest, _decode_content)
    return state if decoded is state.manifest else state.model_copy(update={"manifest": decoded})


def dump_options(options: BaseSandboxClientOptions) -> JsonObject:
    """Return client options as JSON, with their ``type``."""
    return _dump(options)


def load_options(data: JsonObject) -> BaseSandboxClientOptions:
    """Return the client options of the registered class that ``type`` names."""
    return BaseSandboxClientOptions.parse(data)


def dump_snapshot(snapshot: SnapshotSpec | SnapshotBase) -> JsonObject:
    """Return a snapshot or a snapshot spec as JSON; only a snapshot has an ``id``."""
    return _dump(snapshot)


def load_snapshot(data: JsonObject) -> SnapshotSpec | SnapshotBase:
    """Return the snapshot or the snapshot spec that `data` was made from."""
    return SnapshotBase.parse(data) if "id" in data else _SNAPSHOT_SPEC.validate_python(data)


def state_delta(before: JsonObject, after: JsonObject) -> JsonObject:
    """Return the fields of `after` that differ from `before`; those of its manifest likewise.

    A state is mostly its manifest, and a manifest is mostly file contents, which hardly ever
    change. What an operation changes is a few short fields.
    """
    delta = {key: value for key, value in after.items() if before.get(key, ...) != value}
    manifest, known = delta.get("manifest"), before.get("manifest")
    if isinstance(manifest, dict) and isinstance(known, dict):
        delta["manifest"] = {k: v for k, v in manifest.items() if known.get(k, ...) != v}
    return delta


def apply_delta(before: JsonObject, delta: JsonObject) -> JsonObject:
    """Return `before` with the fields of a `state_delta` replaced."""
    after = {**before, **delta}
    manifest, known = delta.get("manifest"), before.get("manifest")
    if isinstance(manifest, dict) and isinstance(known, dict):
        after["manifest"] = {**known, **manifest}
    return after


def _dump(model: BaseModel) -> JsonObject:
    return cast("JsonObject", model.model_dump(mode="json"))


def _encode_content(content: bytes) -> bytes:
    # Text that happens to look like our data URL is encoded too, so decoding is unambiguous.
    if not content.startswith(_BINARY):
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            return content
    return _BINARY + base64.b64encode(content)


def _decode_content(content: bytes) -> bytes:
    return (
        base64.b64decode(content.removeprefix(_BINARY)) if content.startswith(_BINARY) else content
    )


def _with_contents(manifest: Manifest, convert: Callable[[bytes], bytes]) -> Manifest:
    entries = _entries_with_contents(manifest.entries, convert)
    return manifest if entries is None else manifest.model_copy(update={"entries": entries})


def _entries_with_contents(
    entries: Mapping[_PathT, BaseEntry], convert: Callable[[bytes], bytes]
) -> dict[_PathT, BaseEntry] | None:
    converted = {path: _entry_with_contents(entry, convert) for path, entry in entries.items()}
    changed = any(converted[path] is not entry for path, entry in entries.items())
    return converted if changed else None


def _entry_with_contents(entry: BaseEntry, convert: Callable[[bytes], bytes]) -> BaseEntry:
    if isinstance(entry, File):
        content = convert(entry.content)
        return entry if content is entry.content else entry.model_copy(update={"content": content})
    if isinstance(entry, Dir):
        children = _entries_with_contents(entry.children, convert)
        return entry if children is None else entry.model_copy(update={"children": children})
    return entry
