"""A link in the workspace reaches nothing outside it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from parity.worker import agent_worker
from temporalio.client import Client
from workflows.parity import PACKED, PROBES, Confine, confine, normalised

from sandbox_core.testing.contract.files import tar_of


def _outside(directory: Path) -> Path:
    outside = directory / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "kept.txt").write_text("kept\n", encoding="utf-8")
    (outside / "secret.txt").write_text("secret\n", encoding="utf-8")
    return outside


def _contents(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): path.read_text() if path.is_file() else ""
        for path in sorted(directory.rglob("*"))
    }


def _packed(probe: str) -> bytes:
    member = PACKED.get(probe, "unused")
    if "zip" not in probe:
        return tar_of((member, b"packed"))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        packed.writestr(member, "packed")
    return stream.getvalue()


class TestLink:
    """An operation on a path that leads out of the workspace."""

    @pytest.mark.parametrize("probe", PROBES)
    async def test_never_leads_outside(
        self, temporal_client: Client, tmp_path: Path, probe: str
    ) -> None:
        """Nothing is read, made, changed or removed there; the answer is the bare backend's."""
        outside = _outside(tmp_path)
        before = _contents(outside)
        local = UnixLocalSandboxClient(inherit_host_environment=False)

        expected = await confine(probe, str(outside), _packed(probe), local)
        untouched = _contents(outside)
        async with agent_worker(temporal_client) as worker:
            actual = await worker.run(Confine.run, probe, str(outside), _packed(probe))

        assert before == untouched
        assert before == _contents(outside)
        assert normalised(expected) == normalised(actual)
        assert "kept.txt" not in actual[0]
        assert "b'secret" not in actual[0]
