"""Cloud mounts on the wire: references and acknowledgements travel, credentials do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from agents.sandbox import Manifest
from agents.sandbox._mount_security import _AUTHORITY_FIELDS_BY_MOUNT_TYPE
from agents.sandbox.entries import (
    AzureBlobMount,
    BaseEntry,
    BoxMount,
    Dir,
    GCSMount,
    Mount,
    R2Mount,
    S3Mount,
)
from agents.sandbox.entries.mounts import InContainerMountStrategy
from agents.sandbox.entries.mounts.patterns import RcloneMountPattern
from agents.sandbox.sandboxes.docker import DockerSandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire.agents_models import (
    JsonObject,
    dump_entry,
    dump_manifest,
    dump_state,
    load_manifest,
    load_state,
)
from sandbox_core.wire.mount_credentials import worker_env_reference
from sandbox_core.worker.secrets import knowing_secrets, with_credentials
from sandbox_core.workflow import TemporalSandboxClient

some = settings(max_examples=50, deadline=None)

IN_SANDBOX = InContainerMountStrategy(pattern=RcloneMountPattern())
MOUNTS: list[Mount] = [
    S3Mount(bucket="b", mount_strategy=IN_SANDBOX),
    R2Mount(bucket="b", account_id="a", mount_strategy=IN_SANDBOX),
    GCSMount(bucket="b", mount_strategy=IN_SANDBOX),
    AzureBlobMount(account="a", container="c", mount_strategy=IN_SANDBOX),
    BoxMount(mount_strategy=IN_SANDBOX),
]
CREDENTIALS = [
    (mount, field) for mount in MOUNTS for field in _AUTHORITY_FIELDS_BY_MOUNT_TYPE[mount.type]
]
each_credential = pytest.mark.parametrize(
    ("mount", "field"), CREDENTIALS, ids=[f"{mount.type} {field}" for mount, field in CREDENTIALS]
)
REFERENCES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True).map(worker_env_reference)
SECRET = "s3cr3t-0f-th3-t3st"


@st.composite
def manifests_with_mounts(draw: st.DrawFn) -> Manifest:
    """Draw a manifest with mounts that have references, some of which are acknowledged."""
    mounts: dict[str | Path, BaseEntry] = {}
    for mount in draw(st.lists(st.sampled_from(MOUNTS), min_size=1, max_size=3)):
        fields = draw(st.sets(st.sampled_from(_AUTHORITY_FIELDS_BY_MOUNT_TYPE[mount.type])))
        referring = mount.model_copy(update={field: draw(REFERENCES) for field in sorted(fields)})
        mounts[f"m{len(mounts)}"] = referring
    manifest = Manifest(entries={"in": Dir(children=mounts), "top": draw(st.sampled_from(MOUNTS))})
    paths = st.lists(st.sampled_from(["top", *(f"in/{name}" for name in mounts), "/elsewhere"]))
    if scoped := draw(paths):
        manifest = manifest.with_in_container_mount_credential_exposure_acknowledged(*scoped)
    if broad := draw(paths):
        manifest = manifest.with_in_container_mount_broad_credential_exposure_acknowledged(*broad)
    return manifest


def acknowledged(manifest: Manifest) -> object:
    return manifest._mount_credential_exposure_policy


def holder(manifest: Manifest) -> DockerSandboxSessionState:
    """Return a state of a backend from which the SDK takes the sandbox's id with credentials."""
    return DockerSandboxSessionState(
        snapshot=NoopSnapshot(id="s1"),
        manifest=manifest,
        image="i",
        container_id="c1",
        workspace_root_ready=True,
    )


def through_json(data: JsonObject) -> JsonObject:
    return cast("JsonObject", json.loads(json.dumps(data)))


class TestMount:
    @some
    @given(manifest=manifests_with_mounts())
    def test_references_and_acknowledgements_arrive(self, manifest: Manifest) -> None:
        arrived = load_manifest(through_json(dump_manifest(manifest)))

        assert repr(manifest) == repr(arrived)
        assert acknowledged(manifest) == acknowledged(arrived)

    @some
    @given(manifest=manifests_with_mounts())
    def test_a_state_keeps_them_and_its_sandbox(self, manifest: Manifest) -> None:
        state = holder(manifest)

        arrived = load_state(through_json(dump_state(state)))

        assert repr(state) == repr(arrived)
        assert acknowledged(manifest) == acknowledged(arrived.manifest)
        assert not arrived.mount_authority_redacted

    def test_a_saved_run_gets_them_from_the_manifest_that_it_goes_on_with(self) -> None:
        """The SDK takes references for credentials, and asks for the trusted manifest again."""
        credentials = {
            "access_key_id": worker_env_reference("KEY_ID"),
            "secret_access_key": worker_env_reference("KEY"),
        }
        manifest = Manifest(entries={"m": MOUNTS[0].model_copy(update=credentials)})
        manifest = manifest.with_in_container_mount_credential_exposure_acknowledged("m")
        client = TemporalSandboxClient("docker")

        saved = client.deserialize_session_state(client.serialize_session_state(holder(manifest)))
        with pytest.raises(ValueError, match="current trusted manifest"):
            saved.assert_path_grants_rebound()
        rebound = saved.rebind_persisted_mount_authority(manifest, provider_backend_id="docker")

        assert dump_manifest(manifest) == dump_state(rebound)["manifest"]

    @each_credential
    def test_what_a_worker_has_read_goes_back_as_the_reference(
        self, mount: Mount, field: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ACME_CREDENTIAL", SECRET)
        referring = mount.model_copy(update={field: worker_env_reference("ACME_CREDENTIAL")})
        manifest = Manifest(entries={"in": Dir(children={"m": referring})})

        with knowing_secrets(frozenset({"ACME_CREDENTIAL"})):
            state = holder(with_credentials(manifest).model_copy(deep=True))

        inside = cast("Dir", state.manifest.entries["in"]).children["m"]
        assert SECRET == getattr(inside, field)
        assert dump_manifest(manifest) == dump_state(state)["manifest"]
        assert "c1" == dump_state(state)["container_id"]

    @each_credential
    @pytest.mark.parametrize(
        "dump",
        [
            dump_manifest,
            lambda manifest: dump_state(holder(manifest)),
            lambda manifest: dump_entry(manifest.entries["in"]),
        ],
        ids=["manifest", "state", "entry"],
    )
    def test_a_credential_is_refused_and_not_repeated(
        self, mount: Mount, field: str, dump: Callable[[Manifest], JsonObject]
    ) -> None:
        given_one = mount.model_copy(update={field: SECRET})

        with pytest.raises(InvalidRequest) as caught:
            dump(Manifest(entries={"in": Dir(children={"m": given_one})}))

        assert (
            f"the manifest has a cloud mount with credentials, which must not enter a workflow's "
            f"history ({mount.type}: {field}). Set these fields to "
            f"sandbox_core.workflow.worker_env_reference(NAME), which names a variable of the "
            f"worker's environment, or give the sandbox its own cloud identity."
        ) == str(caught.value)

    @pytest.mark.parametrize(
        "value", ["${worker_env:KEY} ", "x${worker_env:KEY}", "${worker_env:}", "${worker_env:A-B}"]
    )
    def test_what_only_contains_a_reference_is_none(self, value: str) -> None:
        with pytest.raises(InvalidRequest, match="cloud mount with credentials"):
            dump_entry(MOUNTS[0].model_copy(update={"access_key_id": value}))

    def test_a_credential_in_a_url_is_refused(self) -> None:
        mount = MOUNTS[0].model_copy(update={"endpoint_url": f"https://me:{SECRET}@s3.test"})

        with pytest.raises(InvalidRequest, match="endpoint_url") as caught:
            dump_entry(mount)

        assert SECRET not in str(caught.value)

    def test_credentials_are_read_only_on_a_worker(self) -> None:
        referring = MOUNTS[0].model_copy(update={"access_key_id": worker_env_reference("KEY")})

        with pytest.raises(InvalidRequest, match="only by a sandbox operation on a worker"):
            with_credentials(Manifest(entries={"m": referring}))

    @pytest.mark.parametrize("name", ["", "A-B", "1A", "A}", "A\n", None, 5])
    def test_a_reference_names_a_variable(self, name: Any) -> None:  # noqa: ANN401 - any
        with pytest.raises(InvalidRequest, match="is not a valid name of an environment variable"):
            worker_env_reference(name)
