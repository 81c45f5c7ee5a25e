"""Converts the Agents SDK's models to JSON and back.

Manifests, session states, client options and snapshots are classes of the SDK and of providers.
They are sent as the JSON of their own serializers, so that no discriminator depends on the data
converter. This module adds what that JSON lacks: file contents that are not UTF-8, acknowledged
mount credentials, and the difference between two states.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import cast

from agents.sandbox import Manifest
from agents.sandbox.entries import BaseEntry, File, Mount
from agents.sandbox.manifest import _MountCredentialExposurePolicy
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec
from pydantic import BaseModel, JsonValue

from sandbox_core.errors import InvalidOptions, InvalidRequest, UnknownProvider
from sandbox_core.wire.manifest_entries import change_entries, change_entry
from sandbox_core.wire.mount_credentials import with_references
from sandbox_core.wire.strict import unknown_field
from sandbox_core.wire.subclasses import subclasses_of

JsonObject = dict[str, JsonValue]

_BINARY = b"data:application/octet-stream;base64,"
_ACKNOWLEDGED = "sandbox_core_acknowledged"


def dump_manifest(manifest: Manifest) -> JsonObject:
    """Return `manifest` as JSON, with binary file contents as data URLs.

    Raises:
        InvalidRequest: A path grant has a ``host_path``, which would enter the history and mean
            nothing on another machine; or a mount has credentials other than references to the
            worker's environment.
    """
    bound = [grant.path for grant in manifest.extra_path_grants if grant.host_path is not None]
    if bound:
        raise InvalidRequest(
            f"the manifest grants {', '.join(bound)} with a host_path: a workflow cannot name "
            f"paths on a worker's host. Remove host_path from these grants."
        )
    data = _dump(change_entries(manifest, _writable))
    # Private attributes of the manifest, which the SDK does not accept as input.
    policy = manifest._mount_credential_exposure_policy
    if policy.mount_scoped or policy.broad:
        data[_ACKNOWLEDGED] = {
            "mount_scoped": list[JsonValue](sorted(policy.mount_scoped)),
            "broad": list[JsonValue](sorted(policy.broad)),
        }
    return data


def load_manifest(data: JsonObject) -> Manifest:
    """Return the manifest that `dump_manifest` made `data` from."""
    rest = {key: value for key, value in data.items() if key != _ACKNOWLEDGED}
    manifest = change_entries(Manifest.model_validate(rest), _decoded)
    acknowledged = cast("dict[str, list[str]] | None", data.get(_ACKNOWLEDGED))
    if acknowledged is not None:
        manifest._mount_credential_exposure_policy = _MountCredentialExposurePolicy(
            mount_scoped=frozenset(acknowledged["mount_scoped"]),
            broad=frozenset(acknowledged["broad"]),
        )
    return manifest


def dump_entry(entry: BaseEntry) -> JsonObject:
    """Return one manifest entry as JSON.

    Raises:
        InvalidRequest: It has a mount with credentials other than references.
    """
    return _dump(change_entry(entry, _writable))


def load_entry(data: JsonObject) -> BaseEntry:
    """Return the entry that `dump_entry` made `data` from."""
    return change_entry(BaseEntry.parse(data), _decoded)


def dump_state(state: SandboxSessionState) -> JsonObject:
    """Return a session state as JSON, discriminators included.

    Raises:
        InvalidRequest: It lost its class, or `dump_manifest` refuses its manifest.
    """
    if type(state) is SandboxSessionState:
        raise _lost_class(state.type)
    # The SDK's own serializer removes mount credentials, references included, and with them the
    # sandbox's id.
    bare = state.manifest.model_copy(update={"entries": {}})
    data = _dump(state.model_copy(update={"manifest": bare}))
    data["manifest"] = dump_manifest(state.manifest)
    return data


def with_encoded_contents(state: SandboxSessionState) -> SandboxSessionState:
    """Return `state` with binary file contents of its manifest as data URLs."""
    encoded = change_entries(state.manifest, _encoded)
    return state if encoded is state.manifest else state.model_copy(update={"manifest": encoded})


def load_state(data: JsonObject) -> SandboxSessionState:
    """Return the session state, of the registered class that `data` names.

    Raises:
        UnknownProvider: No loaded provider registered that class.
        InvalidRequest: `data` lacks its type, its manifest or the backend's fields, or is not valid
            for the class.
    """
    missing = [name for name in ("type", "manifest") if data.get(name) is None]
    if missing:
        raise InvalidRequest(
            f"not a serialized session state: it has no {missing[0]!r}. Pass the dict that "
            f"client.serialize_session_state(...) has returned, unchanged."
        )
    cls = SandboxSessionState._subclass_registry.get(str(data["type"]))
    if cls is None:
        # The SDK's own error does not say which.
        raise UnknownProvider(
            f"no provider loaded here has session states of type {data['type']!r}: install "
            f"it, and give this worker SandboxPlugin(), with register_activities=False if it only "
            f"runs workflows."
        )
    own = cls.model_fields.keys() - SandboxSessionState.model_fields.keys()
    if own and own.isdisjoint(data):
        raise _lost_class(str(data.get("type")))
    # The SDK empties a payload that does not validate, hence the copy.
    payload = dict(data)
    manifest = payload.get("manifest")
    if isinstance(manifest, dict):
        payload["manifest"] = {**manifest, "entries": {}}
    try:
        state = SandboxSessionState.parse(payload)
    except ValueError as error:
        raise InvalidRequest(
            f"not a session state of type {data.get('type')!r}, class {cls.__name__}: {error}"
        ) from error
    loaded = load_manifest(cast("JsonObject", manifest))
    # Paths of another host were removed from them.
    loaded.extra_path_grants = state.manifest.extra_path_grants
    return state.model_copy(update={"manifest": loaded})


def _lost_class(state_type: str) -> InvalidRequest:
    cls = SandboxSessionState._subclass_registry.get(state_type)
    name = "the backend's own class" if cls is None else cls.__name__
    return InvalidRequest(
        f"a session state of type {state_type!r} has lost its sandbox's id: it was passed as "
        f"SandboxSessionState, and data converters then drop the fields of {name}. Pass "
        f"client.serialize_session_state(state), a dict, and read it with "
        f"client.deserialize_session_state(...); or annotate arguments and results with {name}, "
        f"and fields of your own models with SerializeAsAny[{name}]."
    )


def dump_options(options: BaseSandboxClientOptions) -> JsonObject:
    """Return client options as JSON: the ``type`` and every value that is not the default.

    A worker then refuses an unknown field only if the workflow set it.
    """
    chosen = cast("JsonObject", options.model_dump(mode="json", exclude_defaults=True))
    return {"type": options.type, **chosen}


def options_class(data: JsonObject) -> type[BaseSandboxClientOptions] | None:
    """Return the class that is registered for the ``type`` of options, if one is imported here."""
    return BaseSandboxClientOptions._options_class_for_type(str(data.get("type")))


def load_options(data: JsonObject) -> BaseSandboxClientOptions:
    """Return the client options, of the registered class that ``type`` names.

    Raises:
        InvalidOptions: They have a field that the class does not have on this worker.
    """
    cls = BaseSandboxClientOptions._subclass_registry.get(str(data.get("type")))
    known = cls.model_fields if cls is not None else data
    for name in data:
        if name not in known:
            raise InvalidOptions(
                f"{data['type']!r} options: {unknown_field(name, known)}. If the workflow's worker "
                f"has a newer version of them, update this one."
            )
    return BaseSandboxClientOptions.parse(data)


def dump_snapshot(snapshot: SnapshotSpec | SnapshotBase) -> JsonObject:
    """Return a snapshot or a snapshot spec as JSON; only a snapshot has an ``id``."""
    return _dump(snapshot)


def load_snapshot(data: JsonObject) -> SnapshotSpec | SnapshotBase:
    """Return the snapshot or snapshot spec encoded in `data`.

    Raises:
        InvalidRequest: Its class is not imported here.
    """
    if "id" in data:
        return SnapshotBase.parse(data)
    # The SDK registers snapshots by their type, but not the specs that they are built from.
    specs = subclasses_of(SnapshotSpec)  # type: ignore[type-abstract]  # only walked
    known = {cls.model_fields["type"].default: cls for cls in specs}
    spec = known.get(data.get("type"))
    if spec is None:
        raise InvalidRequest(
            f"a snapshot spec of type {data.get('type')!r} is not known here. Import its class in "
            f"the provider's module, which every worker imports."
        )
    return spec.model_validate(data)


def state_delta(before: JsonObject, after: JsonObject) -> JsonObject:
    """Return the fields of `after` that differ from `before`, likewise for its manifest.

    A state is mostly its manifest, and that is mostly file contents, which rarely change.
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
    # Text that looks like our data URL is encoded too, so that decoding is unambiguous.
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


def _encoded(entry: BaseEntry) -> BaseEntry:
    return _with_content(entry, _encode_content)


def _decoded(entry: BaseEntry) -> BaseEntry:
    return _with_content(entry, _decode_content)


def _writable(entry: BaseEntry) -> BaseEntry:
    return with_references(entry) if isinstance(entry, Mount) else _encoded(entry)


def _with_content(entry: BaseEntry, convert: Callable[[bytes], bytes]) -> BaseEntry:
    if not isinstance(entry, File):
        return entry
    content = convert(entry.content)
    return entry if content is entry.content else entry.model_copy(update={"content": content})
