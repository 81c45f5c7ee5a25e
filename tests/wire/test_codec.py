"""The SDK's models survive plain JSON, with their class."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Literal, cast

import pytest
from agents.extensions.sandbox.daytona import DaytonaSandboxClientOptions
from agents.sandbox import Manifest
from agents.sandbox.entries import BaseEntry, Dir, File, GitRepo, LocalDir, LocalFile
from agents.sandbox.manifest import EnvEntry, Environment, EnvValue, StrEnvValue
from agents.sandbox.materialization import MaterializedFile
from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClientOptions,
    UnixLocalSandboxSessionState,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import (
    LocalSnapshot,
    LocalSnapshotSpec,
    NoopSnapshot,
    NoopSnapshotSpec,
    RemoteSnapshot,
    RemoteSnapshotSpec,
    SnapshotBase,
    SnapshotSpec,
)
from agents.sandbox.types import Group, Permissions, User
from agents.sandbox.workspace_paths import SandboxPathGrant
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, JsonValue

from sandbox_core.errors import InvalidOptions, InvalidRequest
from sandbox_core.wire.agents_models import (
    JsonObject,
    apply_delta,
    dump_entry,
    dump_manifest,
    dump_options,
    dump_snapshot,
    dump_state,
    load_entry,
    load_manifest,
    load_options,
    load_snapshot,
    load_state,
    state_delta,
)

DATA_URL = b"data:application/octet-stream;base64,"
CONTENTS = [
    b"",
    b"text\n",
    "gr\u00fc\u00dfe \U0001f600".encode(),
    b"\x00\x01",
    b"\r\n",
    b"\xef\xbb\xbfbom",
    b"\xff\xfe",
    b"\x89PNG\r\n\x1a\n",
    b"cut \xe2\x82",
    DATA_URL,
    DATA_URL + b"aGk=",
    DATA_URL + b"not base64",
    DATA_URL + b"\xff",
    b"data:text/plain,hello",
]
some = settings(max_examples=50, deadline=None)


# --- What a third party brings along --------------------------------------------------------------


class AcmeOptions(BaseSandboxClientOptions):
    type: Literal["acme-wire"] = "acme-wire"
    region: str = "eu"
    labels: dict[str, str] = Field(default_factory=dict)


class AcmeSnapshot(SnapshotBase):
    type: Literal["acme-wire"] = "acme-wire"
    bucket: str

    async def persist(self, data: io.IOBase, *, dependencies: Dependencies | None = None) -> None:
        raise NotImplementedError

    async def restore(self, *, dependencies: Dependencies | None = None) -> io.IOBase:
        raise NotImplementedError

    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        raise NotImplementedError


class AcmeSnapshotSpec(SnapshotSpec):
    type: Literal["acme-wire"] = "acme-wire"
    bucket: str

    def build(self, snapshot_id: str) -> SnapshotBase:
        return AcmeSnapshot(id=snapshot_id, bucket=self.bucket)


class AcmeState(SandboxSessionState):
    type: Literal["acme-wire"] = "acme-wire"
    machine: str
    pools: tuple[int, ...] = ()
    parent: str | None = None


class AcmeEntry(BaseEntry):
    type: Literal["acme-wire-template"] = "acme-wire-template"
    template: str

    async def apply(
        self, session: BaseSandboxSession, dest: Path, base_dir: Path
    ) -> list[MaterializedFile]:
        raise NotImplementedError


class AcmeVaultValue(EnvValue):
    type: Literal["acme-wire-vault"] = "acme-wire-vault"
    path: str

    async def resolve(self) -> str:
        raise NotImplementedError


# --- Examples -------------------------------------------------------------------------------------


def full_manifest() -> Manifest:
    return Manifest(
        root="/srv/space",
        entries={
            "README.md": File(content=b"hello", description="read me", ephemeral=True),
            "logo.png": File(content=b"\x89PNG\xff", permissions=Permissions(owner=6, other=4)),
            Path("bin/run"): File(content=b"#!/bin/sh\n", group=User(name="dev")),
            "src": Dir(
                group=Group(name="staff", users=[User(name="dev")]),
                children={
                    "data": Dir(children={"deep.bin": File(content=b"\xff\xfe")}),
                    "url.txt": File(content=DATA_URL + b"aGk="),
                },
            ),
            "repo": GitRepo(repo="octo/hello", ref="main", subpath="docs"),
            "skills": LocalDir(src=Path("skills")),
            "notes.txt": LocalFile(src=Path("notes.txt")),
            "conf": AcmeEntry(template="{{ name }}"),
        },
        environment=Environment(
            value={
                "PLAIN": "1",
                "TYPED": StrEnvValue(value="2"),
                "ENTRY": EnvEntry(value=StrEnvValue(value="3"), description="d", ephemeral=True),
                "VAULT": AcmeVaultValue(path="kv/app"),
            }
        ),
        users=[User(name="dev"), User(name="ops")],
        groups=[Group(name="staff", users=[User(name="dev"), User(name="ops")])],
        extra_path_grants=(SandboxPathGrant(path="/data", read_only=True, description="d"),),
        remote_mount_command_allowlist=["ls"],
    )


def state_of(manifest: Manifest) -> AcmeState:
    return AcmeState(
        snapshot=AcmeSnapshot(id="s1", bucket="b"),
        manifest=manifest,
        exposed_ports=(80, 443),
        snapshot_fingerprint="f",
        machine="m-1",
        pools=(1, 2),
    )


def local_state(manifest: Manifest) -> UnixLocalSandboxSessionState:
    return UnixLocalSandboxSessionState(snapshot=NoopSnapshot(id="s1"), manifest=manifest)


def through_json(data: JsonObject) -> JsonObject:
    return cast("JsonObject", json.loads(json.dumps(data)))


def same(expected: BaseModel, actual: BaseModel) -> bool:
    """Return whether two models are equal in class and in every field.

    The SDK's `==` of users and groups looks at names alone, and that of permissions at the mode.
    """
    return type(expected) is type(actual) and repr(expected) == repr(actual)


def sent(manifest: Manifest) -> Manifest:
    return load_manifest(through_json(dump_manifest(manifest)))


def content_of(entry: BaseEntry) -> bytes:
    assert isinstance(entry, File)
    return entry.content


class TestManifest:
    def test_everything_in_it_arrives(self) -> None:
        expected = full_manifest()
        # JSON has no paths for keys.
        expected.entries = {str(path): entry for path, entry in expected.entries.items()}

        assert same(expected, sent(full_manifest()))

    def test_an_empty_one_arrives(self) -> None:
        assert same(Manifest(), sent(Manifest()))

    @pytest.mark.parametrize("content", CONTENTS)
    def test_a_file_arrives_byte_for_byte(self, content: bytes) -> None:
        manifest = sent(Manifest(entries={"f": File(content=content)}))

        assert content == content_of(manifest.entries["f"])

    @some
    @given(content=st.binary() | st.text().map(str.encode) | st.binary().map(DATA_URL.__add__))
    def test_a_file_in_a_directory_arrives_byte_for_byte(self, content: bytes) -> None:
        deep = Dir(children={"b": Dir(children={"f": File(content=content)})})

        a = sent(Manifest(entries={"a": deep})).entries["a"]

        assert isinstance(a, Dir)
        b = a.children["b"]
        assert isinstance(b, Dir)
        assert content == content_of(b.children["f"])

    def test_text_stays_readable(self) -> None:
        dumped = dump_manifest(Manifest(entries={"a.txt": File(content=b"hello")}))

        assert '"content": "hello"' in json.dumps(dumped)

    def test_it_is_left_as_it_is(self) -> None:
        manifest = full_manifest()

        dump_manifest(manifest)

        assert same(full_manifest(), manifest)

    def test_the_json_is_left_as_it_is(self) -> None:
        dumped = through_json(dump_manifest(full_manifest()))
        before = json.dumps(dumped)

        load_manifest(dumped)

        assert before == json.dumps(dumped)

    def test_a_grant_of_a_path_on_the_host_is_rejected(self) -> None:
        manifest = Manifest(
            extra_path_grants=(
                SandboxPathGrant(path="/data", host_path="/srv/data"),
                SandboxPathGrant(path="/cache"),
                SandboxPathGrant(path="/models", host_path="/srv/models"),
            )
        )

        with pytest.raises(InvalidRequest) as caught:
            dump_manifest(manifest)

        assert (
            "the manifest grants /data, /models with a host_path: a workflow cannot name paths on "
            "a worker's host. Remove host_path from these grants."
        ) == str(caught.value)


class TestEntry:
    @pytest.mark.parametrize(
        "entry",
        [*full_manifest().entries.values(), GitRepo(host="git.example.com", repo="a/b", ref="v1")],
        ids=lambda entry: entry.type,
    )
    def test_it_arrives_as_the_same_class(self, entry: BaseEntry) -> None:
        assert same(entry, load_entry(through_json(dump_entry(entry))))


class TestState:
    def test_a_third_partys_state_arrives_whole(self) -> None:
        state = state_of(sent(full_manifest()))

        assert same(state, load_state(through_json(dump_state(state))))

    def test_the_local_backends_state_arrives_whole(self) -> None:
        state = local_state(sent(full_manifest()))

        assert same(state, load_state(through_json(dump_state(state))))

    def test_the_json_is_left_as_it_is_even_if_it_is_no_state(self) -> None:
        broken: JsonObject = {"type": "acme-wire", "machine": 1, "manifest": {"entries": {}}}
        before = json.dumps(broken)

        with pytest.raises(InvalidRequest, match="not a session state of type 'acme-wire'"):
            load_state(broken)

        assert before == json.dumps(broken)

    def test_a_state_of_a_provider_that_is_not_loaded_is_an_error_that_names_it(self) -> None:
        with pytest.raises(Exception, match="no-such-backend"):
            load_state({**dump_state(state_of(Manifest())), "type": "no-such-backend"})


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [
            AcmeOptions(),
            AcmeOptions(region="us", labels={"team": "a"}),
            UnixLocalSandboxClientOptions(exposed_ports=(8080,)),
            DaytonaSandboxClientOptions(image="python:3.12", env_vars={"A": "1"}),
        ],
        ids=repr,
    )
    def test_they_arrive_as_the_same_class(self, options: BaseSandboxClientOptions) -> None:
        assert same(options, load_options(through_json(dump_options(options))))

    @pytest.mark.parametrize("kind", ["acme-wire", "daytona", "unix_local"])
    def test_an_unknown_field_is_refused(self, kind: str) -> None:
        """Those of the SDK's classes too, which a newer workflow may have set."""
        with pytest.raises(InvalidOptions, match=f"'{kind}' options: no field 'exposed_port'"):
            load_options({"type": kind, "exposed_port": [80]})

    def test_only_what_was_chosen_travels(self) -> None:
        """A worker need not know a new field that the workflow has not set."""
        chosen = {"type": "acme-wire", "region": "us"}

        assert chosen == dump_options(AcmeOptions(region="us"))

    def test_the_type_travels_even_where_a_converter_drops_unset_fields(self) -> None:
        assert "acme-wire" == dump_options(AcmeOptions())["type"]


class TestSnapshot:
    @pytest.mark.parametrize(
        "snapshot",
        [
            NoopSnapshot(id="s1"),
            LocalSnapshot(id="s1", base_path=Path("/snapshots")),
            RemoteSnapshot(id="s1", client_dependency_key="store"),
            AcmeSnapshot(id="s1", bucket="b"),
            NoopSnapshotSpec(),
            LocalSnapshotSpec(base_path=Path("/snapshots")),
            RemoteSnapshotSpec(client_dependency_key="store"),
            AcmeSnapshotSpec(bucket="b"),
        ],
        ids=lambda snapshot: type(snapshot).__name__,
    )
    def test_it_arrives_as_the_same_class(self, snapshot: SnapshotBase | SnapshotSpec) -> None:
        assert same(snapshot, load_snapshot(through_json(dump_snapshot(snapshot))))

    def test_a_spec_of_an_unknown_class_is_refused(self) -> None:
        with pytest.raises(InvalidRequest, match="of type 'other' is not known here"):
            load_snapshot({"type": "other"})


# --- Differences between states -------------------------------------------------------------------

KEYS = st.sampled_from(["type", "machine", "snapshot", "ports", "parent"])
FIELDS = st.sampled_from(["version", "root", "entries", "users"])
VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
MANIFESTS = st.dictionaries(FIELDS, VALUES)


@st.composite
def two_states(draw: st.DrawFn) -> tuple[JsonObject, JsonObject]:
    """Draw two states of which the second has at least the fields of the first."""
    before, after = (draw(st.dictionaries(KEYS, VALUES)) for _ in range(2))
    manifest = draw(MANIFESTS)
    return (
        {**before, "manifest": manifest},
        {**before, **after, "manifest": {**manifest, **draw(MANIFESTS)}},
    )


class TestStateDelta:
    @some
    @given(states=two_states())
    def test_applied_to_the_first_it_gives_the_second(
        self, states: tuple[JsonObject, JsonObject]
    ) -> None:
        before, after = states

        assert after == apply_delta(before, through_json(state_delta(before, after)))

    @some
    @given(states=two_states())
    def test_it_changes_neither(self, states: tuple[JsonObject, JsonObject]) -> None:
        as_text = json.dumps(states)

        apply_delta(states[0], state_delta(*states))

        assert as_text == json.dumps(states)

    @some
    @given(states=two_states())
    def test_between_equal_states_it_is_empty(self, states: tuple[JsonObject, JsonObject]) -> None:
        assert {} == state_delta(states[1], states[1])

    @some
    @given(states=two_states(), part=st.sampled_from(["manifest only", "nothing"]))
    def test_what_a_create_knows_of_the_state_is_enough(
        self, states: tuple[JsonObject, JsonObject], part: str
    ) -> None:
        before, after = states
        known: JsonObject = {"manifest": before["manifest"]} if part == "manifest only" else {}

        assert after == apply_delta(known, state_delta(known, after))

    def test_a_field_that_becomes_none_is_in_it(self) -> None:
        before: JsonObject = {"parent": "p", "manifest": {"root": "/a"}}
        after: JsonObject = {"parent": None, "manifest": {"root": None}}

        assert after == state_delta(before, after)
        assert after == apply_delta(before, state_delta(before, after))

    def test_a_field_that_is_none_at_first_is_in_it_once_it_is_not(self) -> None:
        before: JsonObject = {"parent": None, "manifest": None}
        after: JsonObject = {"parent": "p", "manifest": {"root": "/a"}}

        assert after == apply_delta(before, state_delta(before, after))

    def test_a_changed_entry_replaces_all_entries(self) -> None:
        before: JsonObject = {"manifest": {"root": "/a", "entries": {"gone": 1, "kept": 2}}}
        after: JsonObject = {"manifest": {"root": "/a", "entries": {"kept": 2}}}

        assert {"manifest": {"entries": {"kept": 2}}} == state_delta(before, after)
        assert after == apply_delta(before, state_delta(before, after))

    def test_a_field_that_is_lost_stays(self) -> None:
        """A delta cannot say so; the next test is why it need not."""
        before: JsonObject = {"parent": "p", "manifest": {"root": "/a", "users": []}}

        assert before == apply_delta(before, state_delta(before, {"manifest": {"root": "/a"}}))

    def test_no_model_of_the_sdk_loses_a_field_when_its_values_change(self) -> None:
        full, empty = state_of(full_manifest()), state_of(Manifest())
        empty.parent, full.parent = None, "p"
        empty.snapshot_fingerprint = None
        before, after = dump_state(full), dump_state(empty)

        assert before.keys() == after.keys()
        assert cast("JsonObject", before["manifest"]).keys() == (
            cast("JsonObject", after["manifest"]).keys()
        )

    def test_real_states_are_equal_after_it(self) -> None:
        before, after = state_of(full_manifest()), state_of(sent(full_manifest()))
        after.workspace_root_ready = True
        after.manifest.root = "/elsewhere"
        after.manifest.entries["new.bin"] = File(content=b"\xff")

        delta = through_json(state_delta(dump_state(before), dump_state(after)))

        after.session_id = before.session_id
        delta.pop("session_id")
        assert same(after, load_state(apply_delta(dump_state(before), delta)))

    def test_of_a_manifest_of_50_files_whose_root_changed_it_is_under_200_bytes(self) -> None:
        files: dict[str | Path, BaseEntry] = {
            f"src/file_{n}.py": File(content=b"x" * 1000) for n in range(50)
        }
        before = local_state(Manifest(entries=files))
        after = before.model_copy(
            update={
                "manifest": before.manifest.model_copy(update={"root": "/tmp/sandbox-local-x1y2"}),
                "workspace_root_ready": True,
            }
        )

        delta = state_delta(dump_state(before), dump_state(after))

        assert {
            "manifest": {"root": "/tmp/sandbox-local-x1y2"},
            "workspace_root_ready": True,
        } == delta
        assert len(json.dumps(delta)) < 200
