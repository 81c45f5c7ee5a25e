"""`deploy/compose.yaml`, unchanged, on an engine that has images under the names that it uses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final

from deployed import ROOT, WORKER_IMAGE
from docker_engine import IMAGE, DockerEngine

from sandbox_core.testing.dev_server import temporal_executable

UNAVAILABLE: Final = "needs Compose 2 (apt-get install docker-compose or docker-compose-v2)"
"""Why Compose cannot run here, if `available` says so."""

_FILE: Final = ROOT / "deploy" / "compose.yaml"
_PLUGINS: Final = ("/usr/libexec", "/usr/lib", "/usr/local/lib", "/usr/local/libexec")
_USERS: Final = b"root:x:0:0:root:/root:/bin/sh\ntemporal:x:1000:1000::/:/bin/sh\n"


def available() -> bool:
    """Return whether there is a Compose that knows the file's format."""
    return _compose() is not None


def _compose() -> str | None:
    folders = (f"{folder}/docker/cli-plugins" for folder in _PLUGINS)
    return next(filter(None, (shutil.which("docker-compose", path=each) for each in folders)), None)


class Project:
    """The project of a copy of the file.

    Args:
        engine: The engine, a private one.
        folder: Where the file is, and its ``.env``.
    """

    def __init__(self, engine: DockerEngine, folder: Path) -> None:
        self.engine = engine
        self._folder = folder

    def compose(self, *arguments: str) -> str:
        """Run ``docker compose``, which has to succeed, and return its standard output."""
        socket = Path(self.engine.host.removeprefix("unix://"))
        done = subprocess.run(
            [str(_compose()), "--file", self._folder / _FILE.name, *arguments],
            env={
                **os.environ,
                "DOCKER_HOST": self.engine.host,
                "DOCKER_GROUP": str(socket.stat().st_gid),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, f"{arguments}: {done.stdout}{done.stderr}{self._logs()}"
        return done.stdout

    def temporal(self, *arguments: str) -> str:
        """Run ``temporal`` in the server's container and return its standard output."""
        # By number: there is no name server behind the engine's own, and gRPC would wait for it.
        server = ("-e", "TEMPORAL_ADDRESS=127.0.0.1:7233")
        return self.compose("exec", "-T", *server, "temporal", "temporal", *arguments)

    def _logs(self) -> str:
        return "".join(
            f"\n{container.name} {container.status}:\n{container.logs(tail=20).decode()}"
            for container in self.engine.client.containers.list(all=True)
        )


@contextmanager
def project(shared: DockerEngine, folder: Path, app: Path, *settings: str) -> Iterator[Project]:
    """Yield a project on an engine with its images; the worker's contains an app.

    Args:
        shared: The engine that has `WORKER_IMAGE` and `IMAGE`.
        folder: Becomes that of the file.
        app: A folder with the module ``app``, and the workflow ``Wait`` in it.
        settings: Lines of ``.env``.
    """
    shutil.copy(_FILE, folder)
    (folder / ".env").write_text("\n".join(settings))
    with DockerEngine(private=True) as engine:
        (sandbox,) = re.findall(r"SANDBOX_DOCKER_IMAGE: (\S+)", _FILE.read_text("utf-8"))
        engine.copy_image(shared, IMAGE, sandbox)
        engine.copy_image(shared, WORKER_IMAGE, "sandbox-worker")
        # As docs/deploy.md says.
        (app / "Dockerfile").write_text(
            'FROM sandbox-worker\nCOPY app.py /app/\nCMD ["app:Wait"]\n'
        )
        engine.client.images.build(path=str(app), tag="sandbox-worker", rm=True)
        _import_temporal(engine)
        yield Project(engine, folder)


def _import_temporal(engine: DockerEngine) -> None:
    """Make the server's image of this environment's own binary, which is static."""
    (name,) = re.findall(r"image: (temporalio/\S+)", _FILE.read_text("utf-8"))
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(temporal_executable(), "usr/local/bin/temporal")
            users = tarfile.TarInfo("etc/passwd")
            users.size = len(_USERS)
            tar.addfile(users, BytesIO(_USERS))
            folder = tarfile.TarInfo("tmp")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(folder)
        archive.seek(0)
        engine.client.api.import_image_from_data(
            archive,
            *name.split(":"),
            changes=['ENTRYPOINT ["temporal"]', "USER 1000", "ENV PATH=/usr/local/bin"],
        )
