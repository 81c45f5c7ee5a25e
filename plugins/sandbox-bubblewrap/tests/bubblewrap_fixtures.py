"""Workers and scenes for the tests of bubblewrap."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from agents.sandbox import Manifest, SandboxPathGrant
from agents.sandbox.entries import Dir, File
from agents.sandbox.manifest import Environment
from agents.sandbox.session.sandbox_session import SandboxSession
from bubblewrap_scene import scene
from bubblewrap_worker import Worker, new_home

from sandbox_bubblewrap import (
    BubblewrapProvider,
    BubblewrapSandboxSessionState,
    bwrap,
    launch,
    sandbox_client_provider,
)
from sandbox_bubblewrap.client import BubblewrapSandboxClient
from sandbox_bubblewrap.store import Sandbox, remove_tree

WORKERS = ["as root", "as a user"]

SOON_S = 60
"""On the slowest machine; what it is a limit to would take longer, or have no end."""


@pytest.fixture(scope="session")
def usable() -> None:
    """Nothing here can be tested where the kernel lets bwrap make no namespaces."""
    try:
        command = [bwrap.find().path, "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/"]
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (bwrap.BubblewrapUnusable, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets bwrap make no namespaces: {error}")


@pytest.fixture(scope="module", params=WORKERS)
def worker(request: pytest.FixtureRequest, usable: None) -> Iterator[Worker]:
    """A worker that is root, and one that is not."""
    as_root = request.param == "as root"
    if as_root and os.geteuid() != 0:
        pytest.skip("only root can start a worker as root")
    home = new_home()
    started = Worker(home, as_root=as_root)
    yield started
    started.close()
    clean(home)


@pytest.fixture(scope="module")
def host() -> Iterator[dict[str, str]]:
    """The environment that tells what a host has to be attacked."""
    home = new_home()
    home.chmod(0o755)
    with scene(home) as env:
        yield env
    shutil.rmtree(home)


@pytest.fixture
def provider(home: Path) -> BubblewrapProvider:
    return sandbox_client_provider()


@pytest.fixture
def client(provider: BubblewrapProvider) -> BubblewrapSandboxClient:
    return provider.create_client()


@pytest.fixture
def home(usable: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for sandboxes of this process."""
    made = new_home()
    monkeypatch.setenv("SANDBOX_BUBBLEWRAP_HOME", str(made / "store"))
    yield made
    clean(made)


def clean(home: Path) -> None:
    """End and remove the sandboxes of a home, and the home."""
    for path in (home / "store").glob("bwrap-*"):
        launch.stop(Sandbox(path=path))
    remove_tree(home)


@pytest.fixture
async def session(client: BubblewrapSandboxClient) -> AsyncIterator[SandboxSession]:
    manifest = Manifest(
        entries={"hello.txt": File(content=b"hello\n"), "folder": Dir(children={})},
        environment=Environment(value={"GIVEN": "by the manifest"}),
        extra_path_grants=(SandboxPathGrant(path="/tmp"),),
    )
    made = await client.create(manifest=manifest)
    await made.start()
    yield made
    await client.delete(made)


# Is killed when bwrap has been started, and before its process 1 is put into control groups.


def sandbox_of(client: BubblewrapSandboxClient, session: SandboxSession) -> Sandbox:
    assert isinstance(session.state, BubblewrapSandboxSessionState)
    sandbox = client.store.get(session.state.sandbox_id)
    assert sandbox is not None
    return sandbox


async def out_of(session: SandboxSession, script: str) -> str:
    return (await session.exec(script)).stdout.decode(errors="surrogateescape")
