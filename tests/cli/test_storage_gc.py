"""`sandbox-core storage gc`, run as a user runs it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cli.command import SANDBOX, run_sandbox
from google.protobuf.duration_pb2 import Duration
from support import unique
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import RPCError
from workflows.references import Holder, large

from sandbox_core.testing import DevServer
from sandbox_core.worker import SandboxPlugin

_DAY_S = 86_400


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a server of its own, where no other test's workflows are."""
    with DevServer() as server:
        yield server.address


@pytest.fixture
async def storage(address: str, tmp_path: Path) -> Path:
    """A storage with a payload that an open workflow needs, and two that nothing needs."""
    client = await connected(address, tmp_path)
    await start(client, "needed")
    await client.data_converter.encode([large("lost"), large("old")])
    make_old(tmp_path)
    return tmp_path


async def connected(address: str, storage: Path, namespace: str = "default") -> Client:
    plugin = SandboxPlugin(storage=str(storage))
    return await Client.connect(address, namespace=namespace, plugins=[plugin])


async def start(client: Client, name: str) -> None:
    """Start a workflow, and return when the server lists it."""
    handle = await client.start_workflow(
        Holder.run, large(name), id=unique(name), task_queue=unique("queue")
    )
    deadline = time.monotonic() + 30
    while not (await client.count_workflows(f"WorkflowId = '{handle.id}'")).count:
        assert time.monotonic() < deadline


def make_old(storage: Path) -> None:
    for path in (storage / "payloads").iterdir():
        os.utime(path, (time.time() - 30 * _DAY_S,) * 2)


def name_of(value: object) -> str:
    """Return the file in which the driver stores `value` with the default converter."""
    [payload] = DataConverter.default.payload_converter.to_payloads([value])
    return hashlib.sha256(payload.SerializeToString(deterministic=True)).hexdigest()


def stored(storage: Path) -> set[str]:
    return {path.name for path in (storage / "payloads").iterdir()}


def collect(address: str, storage: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_sandbox(
        "storage", "gc", "--storage", str(storage), *arguments, TEMPORAL_ADDRESS=address
    )


class TestDryRun:
    def test_lists_what_is_not_needed_and_deletes_nothing(
        self, address: str, storage: Path
    ) -> None:
        before = stored(storage)

        result = collect(address, storage)

        assert (0, "") == (result.returncode, result.stderr)
        lines = result.stdout.splitlines()
        assert [
            f"Storage    {storage.as_uri()}",
            f"Temporal   {address}",
            "Namespaces default",
        ] == lines[:3]
        unneeded = sorted([name_of(large("lost")), name_of(large("old"))])
        assert [f"  payloads/{name}  2.1 MB  4w" for name in unneeded] == sorted(lines[3:5])
        assert [
            "Payloads: 2 (4.2 MB) not needed, 1 (2.1 MB) needed",
            "Snapshots: none",
            "Nothing was deleted. Use --delete to delete unused objects.",
        ] == lines[5:]
        assert before == stored(storage)

    def test_says_that_snapshots_stay_and_how_they_go(self, address: str, storage: Path) -> None:
        (storage / "snapshots").mkdir()
        (storage / "snapshots" / "00000000-0000-4000-8000-000000000000").touch()

        result = collect(address, storage)

        assert "Snapshots: 1 (0 bytes) that nothing refers to\n" in result.stdout
        assert "No snapshot is deleted without --snapshots-older-than" in result.stdout


class TestDelete:
    def test_deletes_what_is_not_needed(self, address: str, storage: Path) -> None:
        result = collect(address, storage, "--delete")

        assert 0 == result.returncode, result.stderr
        assert "Payloads: 2 (4.2 MB) deleted, 1 (2.1 MB) needed\n" in result.stdout
        assert {name_of(large("needed"))} == stored(storage)

    def test_keeps_what_is_younger_than_the_age(self, address: str, storage: Path) -> None:
        result = collect(address, storage, "--delete", "--older-than", "5w")

        assert 0 == result.returncode, result.stderr
        assert "Payloads: 1 (2.1 MB) needed, 2 (4.2 MB) too young\n" in result.stdout
        assert 3 == len(stored(storage))

    async def test_keeps_what_any_of_the_namespaces_needs(
        self, address: str, storage: Path
    ) -> None:
        client = await connected(address, storage)
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(
                namespace="other", workflow_execution_retention_period=Duration(seconds=_DAY_S)
            )
        )
        other = await connected(address, storage, "other")
        await until_known(other)
        await start(other, "old")
        make_old(storage)

        result = collect(
            address, storage, "--delete", "--namespace", "default", "--namespace", "other"
        )

        assert 0 == result.returncode, result.stderr
        assert "Namespaces default, other\n" in result.stdout
        assert {name_of(large("needed")), name_of(large("old"))} == stored(storage)

    def test_names_what_could_not_be_deleted_and_exits_1(self, address: str, storage: Path) -> None:
        folder = storage / "payloads"
        folder.chmod(0o500)
        try:
            result = subprocess.run(
                [*_unprivileged(), str(SANDBOX), "storage", "gc", "--delete"],
                env={
                    **os.environ,
                    "SANDBOX_CORE_STORAGE": str(storage),
                    "TEMPORAL_ADDRESS": address,
                },
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
        finally:
            folder.chmod(0o700)

        assert 1 == result.returncode
        for name in ("lost", "old"):
            assert f"not deleted: payloads/{name_of(large(name))}: storage file://" in result.stderr
        assert "Permission denied" in result.stderr
        assert "Payloads: 2 (4.2 MB) could not be deleted, 1 (2.1 MB) needed" in result.stdout
        assert 3 == len(stored(storage))


class TestErrors:
    """One clear line, exit code 1, and nothing is deleted."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--older-than", "23h"], "objects that are younger than 24 hours are always kept"),
            (["--snapshots-older-than", "0d"], "objects that are younger than 24 hours are always"),
            (["--namespace", "moon"], "namespace moon: NOT_FOUND: Namespace moon is not found. "),
            (["--address", "127.0.0.1:9"], "cannot connect to Temporal at 127.0.0.1:9: "),
            (["--storage", "/nowhere"], "storage file:///nowhere: there is no such directory."),
            (["--storage", "memory://x"], "storage memory://x: it is in the memory of a worker."),
        ],
    )
    def test_say_what_to_do(
        self, address: str, storage: Path, arguments: Sequence[str], message: str
    ) -> None:
        result = collect(address, storage, "--delete", *arguments)

        assert 1 == result.returncode
        assert message in result.stderr
        assert 1 == len(result.stderr.splitlines())
        assert 3 == len(stored(storage))

    @pytest.mark.parametrize("option", ["--older-than", "--snapshots-older-than"])
    def test_name_the_option_whose_age_is_none(self, option: str) -> None:
        result = run_sandbox("storage", "gc", option, "soon")

        assert 2 == result.returncode
        assert option in result.stderr
        assert "'soon' is not a duration" in result.stderr


async def until_known(client: Client) -> None:
    """Return when the server has taken notice of a new namespace, which it tells nobody."""
    deadline = time.monotonic() + 30
    while not await _is_known(client):
        assert time.monotonic() < deadline


async def _is_known(client: Client) -> bool:
    try:
        await client.count_workflows()
    except RPCError:
        return False
    return True


def _unprivileged() -> list[str]:
    """Return what runs a command without root's right to write where the mode forbids it."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    assert setpriv is not None
    return [setpriv, "--bounding-set=-dac_override", "--inh-caps=-dac_override", "--"]
