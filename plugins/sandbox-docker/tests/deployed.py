"""A worker's image, built of the repository's Dockerfile, and the containers that it runs in."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final

import pip
from docker.models.containers import Container
from docker_engine import IMAGE, DockerEngine, write_file_system
from image import constraints

from sandbox_core import __version__

ROOT: Final = Path(__file__).parents[3]
WORKER_IMAGE: Final = "sandbox-worker:test"

_LIBRARIES: Final = ("libc6", "libgcc-s1", "libstdc++6")  # What wheels may need.
_BASE: Final = "sandbox-worker-base:test"
_HEALTHY_S: Final = 60


def build_image(engine: DockerEngine, context: Path) -> None:
    """Build `WORKER_IMAGE` as ``make image`` does, on a base of this machine's packages."""
    _import_base(engine)
    for project in (ROOT, ROOT / "plugins" / "sandbox-docker"):
        built = ("--quiet", "--wheel", "--out-dir", context)
        subprocess.run([sys.executable, "-m", "uv", "build", *built, project], check=True)
    (context / "constraints.txt").write_text(constraints())
    engine.client.images.build(
        path=str(context),
        dockerfile=str(ROOT / "deploy" / "Dockerfile"),
        tag=WORKER_IMAGE,
        buildargs={"BASE": _BASE, "VERSION": __version__, "PACKAGES": "sandbox-docker"},
        network_mode="host",
        rm=True,
    )


def _import_base(engine: DockerEngine) -> None:
    with tempfile.TemporaryFile() as archive:
        write_file_system(archive, *_LIBRARIES)
        archive.seek(0)
        with tarfile.open(fileobj=archive, mode="a") as tar:
            # What an official image of Python has beside the packages.
            tar.add(Path(pip.__file__).parent, "usr/lib/python3/dist-packages/pip")
            tar.add("/etc/ssl/certs/ca-certificates.crt")
            python = tarfile.TarInfo("usr/bin/python")
            python.type, python.linkname = tarfile.SYMTYPE, "python3"
            tar.addfile(python)
            config = b"[global]\ncert = /etc/ssl/certs/ca-certificates.crt\ntimeout = 120\n"
            settings = tarfile.TarInfo("etc/pip.conf")
            settings.size = len(config)
            tar.addfile(settings, BytesIO(config))
        archive.seek(0)
        engine.client.api.import_image_from_data(archive, *_BASE.split(":"))


@contextmanager
def worker_container(
    engine: DockerEngine, name: str, *command: str, environment: Mapping[str, str], app: Path
) -> Iterator[Container]:
    """Run a worker, read-only and unprivileged, on this host's network.

    Args:
        engine: The engine, which is also the worker's backend.
        name: The container's name.
        command: The targets and options of ``sandbox-core worker``.
        environment: Added to that of the image.
        app: The folder of the targets' modules.
    """
    socket = Path(engine.host.removeprefix("unix://"))
    container = engine.client.containers.run(
        WORKER_IMAGE,
        [*command],
        detach=True,
        name=name,
        hostname="workers",
        init=True,
        network_mode="host",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        group_add=[str(socket.stat().st_gid)],
        volumes=[
            f"{app}:/app:ro",
            f"{socket}:/var/run/docker.sock",
            "sandbox-worker-storage:/var/lib/sandbox-core",
            # Workers of one engine see each other, as processes of one host.
            "sandbox-worker-tmp:/tmp",
        ],
        environment={"SANDBOX_DOCKER_IMAGE": IMAGE, **environment},
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def wait_healthy(container: Container) -> None:
    """Wait until the image's own health check passes.

    Raises:
        AssertionError: It does not within a minute, or the container ends.
    """
    deadline = time.monotonic() + _HEALTHY_S
    while container.status != "exited" and time.monotonic() < deadline:
        container.reload()
        if container.attrs["State"].get("Health", {}).get("Status") == "healthy":
            return
        time.sleep(0.2)  # The engine reports it in no other way than its stream of events.
    raise AssertionError(f"{container.status}: {container.logs().decode()}")


def wait_started(engine: DockerEngine) -> Container:
    """Return the container of the sandbox in which a command has made ``/tmp/log``.

    Raises:
        AssertionError: There is none within a minute.
    """
    deadline = time.monotonic() + _HEALTHY_S
    while time.monotonic() < deadline:
        for container in engine.client.containers.list():
            if IMAGE in container.image.tags and not container.exec_run("test -e /tmp/log")[0]:
                return container
        time.sleep(0.2)  # No event of the engine says that a file was made in a container.
    raise AssertionError("no sandbox runs the command")
