"""Commands in minimal images."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path

import pytest
from agents.sandbox import Manifest
from agents.sandbox.errors import SandboxError
from docker_engine import DockerEngine
from processes.driving import Box, command, seen

from sandbox_core.worker.commands.helper import why_plain
from sandbox_docker import sandbox_client_provider

pytest_plugins = ["docker_fixtures"]

pytestmark = [
    pytest.mark.any_sdk,
    pytest.mark.xdist_group("docker"),
    pytest.mark.skipif(
        shutil.which("busybox") is None, reason="needs busybox (apt-get install busybox-static)"
    ),
]


def make_image(engine: DockerEngine, name: str, applets: Sequence[str]) -> None:
    """Make an image that has busybox under some of its names, and nothing else."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for folder in ("proc", "tmp", "bin"):
            member = tarfile.TarInfo(folder)
            member.type = tarfile.DIRTYPE
            member.mode = 0o1777 if folder == "tmp" else 0o755
            tar.addfile(member)
        first, *others = applets
        tar.add(Path(str(shutil.which("busybox"))).resolve(), f"bin/{first}")
        for applet in others:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname, link.mode = tarfile.LNKTYPE, f"bin/{first}", 0o755
            tar.addfile(link)
    engine.client.api.import_image_from_data(archive.getvalue(), name, "latest")


def all_applets() -> list[str]:
    listed = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
    return sorted({"busybox", *listed.stdout.split()})


@asynccontextmanager
async def box_of(image: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Box]:
    monkeypatch.setenv("SANDBOX_DOCKER_IMAGE", f"{image}:latest")
    provider = sandbox_client_provider()
    client = provider.create_client()
    try:
        session = await client.create(manifest=Manifest(), options=provider.default_options())
        try:
            await session.start()
            yield Box(provider, session)
        finally:
            await client.delete(session)
    finally:
        client.close()


async def test_busybox(engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like Alpine: no glibc, no bash; and no /usr, no users, one folder for what is temporary."""
    make_image(engine, "only-busybox", all_applets())
    run = command("echo run >> runs; echo out; exit 3")
    async with box_of("only-busybox", monkeypatch) as box:
        first, again = await box.run(run), await box.run(run)
        runs = await box.text("cat runs")
        why = why_plain(box.provider, box.session, None)

    assert (b"out\n", b"", 3) == seen(first) == seen(again)
    assert ("run\n", None) == (runs, why)


async def test_no_shell(engine: DockerEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As distroless ones: the SDK prepares a workspace with the image's own shell."""
    make_image(engine, "without-a-shell", ["tail"])

    with pytest.raises(SandboxError, match=r'exec: "sh": executable file not found'):
        async with box_of("without-a-shell", monkeypatch):
            pass
