"""A real Docker engine for the tests: ``dockerd`` on a private socket, with one image.

No registry is needed: the image is made of this machine's own Debian packages. The engine gives its
containers no network, and does not change the machine's firewall; a `private` one does so in a
network of its own.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from docker import DockerClient

UNAVAILABLE: Final = "needs root and dockerd (apt-get install docker.io)"
"""Why there is no engine here, if `available` says so."""

IMAGE: Final = "sandbox-docker-test:latest"

RUNTIME: Final = "another"
"""A second runtime, as gVisor's would be configured; it is the first one by another name."""

_PYTHON: Final = Path("/usr/bin/python3").resolve().name
_PACKAGES: Final = (
    *("bash", "coreutils", "dash", "findutils", "grep", "procps", "sed", "tar", "util-linux"),
    *("python3-minimal", f"{_PYTHON}-minimal", f"lib{_PYTHON}-minimal", f"lib{_PYTHON}-stdlib"),
)
_LEFT_OUT: Final = ("/usr/share/doc", "/usr/share/locale", "/usr/share/man")
_READY_S: Final = 30
# As often as Go does by default, the engine and its programs, which are as small as short-lived,
# spend a tenth of their CPU time looking for garbage.
_GARBAGE: Final = {"GOGC": "800"}

_ON_THE_HOST: Final = (
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-forward=false",
    "--ip-masq=false",
)
_PRIVATE: Final = (
    *("unshare", "--mount", "--net", "sh", "-euc"),
    'mount -t tmpfs tmpfs /run; busybox ip link set lo up; exec "$@"',
    "sh",
)


def available() -> bool:
    """Return whether an engine can be started here."""
    return os.geteuid() == 0 and shutil.which("dockerd") is not None


class DockerEngine:
    """The engine, while its context is entered; its containers and files go with it.

    Args:
        private: The engine is as one of a host of its own: its socket is at ``/run/docker.sock``
            there, and its containers have networks and ports. It has no image.
    """

    def __init__(self, *, private: bool = False) -> None:
        self._private = private

    def __enter__(self) -> DockerEngine:
        # Not a test's own directory: the path of a socket must be short.
        self._root = Path(tempfile.mkdtemp(prefix="dockerd-"))
        listens = "/run/docker.sock" if self._private else f"{self._root}/docker.sock"
        self._log = (self._root / "log").open("wb")
        try:
            self._process = self._start(listens)
            seen = f"/proc/{self._process.pid}/root{listens}" if self._private else listens
            self.host = f"unix://{seen}"
            self.client = DockerClient(base_url=self.host)
            if not self._private:
                self._import_image()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if hasattr(self, "client"):
            self.remove_containers()
            self.client.close()
        if hasattr(self, "_process"):
            self._process.terminate()
            self._process.wait(_READY_S)
        self._log.close()
        for mounted in reversed(_mounts_below(self._root)):
            subprocess.run(["umount", "--lazy", mounted], check=True)
        shutil.rmtree(self._root)

    def _start(self, socket_path: str) -> subprocess.Popen[bytes]:
        # As a service manager does, to be told when it is ready.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(self._root / "ready"))
            process = subprocess.Popen(
                [
                    *(_PRIVATE if self._private else ()),
                    "dockerd",
                    f"--data-root={self._root}/data",
                    f"--exec-root={self._root}/exec",
                    f"--pidfile={self._root}/pid",
                    f"--host=unix://{socket_path}",
                    f"--add-runtime={RUNTIME}={shutil.which('runc')}",
                    *(() if self._private else _ON_THE_HOST),
                ],
                env={**_GARBAGE, **os.environ, "NOTIFY_SOCKET": str(self._root / "ready")},
                stdout=self._log,
                stderr=subprocess.STDOUT,
            )
            ended = os.pidfd_open(process.pid)
            try:
                readable, _, _ = select.select([ready.fileno(), ended], [], [], _READY_S)
            finally:
                os.close(ended)
            if ready.fileno() not in readable:
                process.kill()
                process.wait()
                raise RuntimeError(f"dockerd does not start:\n{self.log()}")
        return process

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Have the engine answer nobody for the duration."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def remove_containers(self) -> None:
        """Remove every container."""
        for container in self.client.containers.list(all=True):
            container.remove(force=True)

    def copy_image(self, source: DockerEngine, name: str, tag: str) -> None:
        """Take the image `name` of another engine, and tag it."""
        self.client.images.load(source.client.images.get(name).save(named=True))
        self.client.images.get(name).tag(tag)

    def log(self) -> str:
        """Return what the engine has said so far."""
        return (self._root / "log").read_text(errors="replace")

    def _import_image(self) -> None:
        with tempfile.TemporaryFile() as archive:
            write_file_system(archive)
            archive.seek(0)
            self.client.api.import_image_from_data(archive, *IMAGE.split(":"))


def _mounts_below(root: Path) -> list[str]:
    mounted = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return [path for path in mounted if path.startswith(f"{root}/")]


def write_file_system(archive: IO[bytes], *more: str) -> None:
    """Write the file system of `IMAGE` as a tar file, with the files of `more` Debian packages."""
    files = {_real(path) for path in _package_files(*_PACKAGES, *more)}
    libraries = {_real(path) for path in _libraries(files)}
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for directory in ("etc", "proc", "root", "run", "tmp", "var/tmp"):
            member = tarfile.TarInfo(directory)
            member.type = tarfile.DIRTYPE
            member.mode = 0o1777 if directory.endswith("tmp") else 0o755
            tar.addfile(member)
        users = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n"
        member = tarfile.TarInfo("etc/passwd")
        member.size = len(users)
        tar.addfile(member, BytesIO(users))
        # Where /bin is a link to /usr/bin on this machine, it is one in the image.
        for link in (Path("/bin"), Path("/sbin"), Path("/lib"), Path("/lib64")):
            if link.is_symlink():
                tar.add(link, recursive=False)
        for path in sorted(files | libraries):
            tar.add(path, recursive=False)


def _package_files(*packages: str) -> Iterator[Path]:
    listed = subprocess.run(
        ["dpkg", "-L", *packages], capture_output=True, text=True, check=True
    ).stdout
    for line in listed.splitlines():
        path = Path(line)
        if line.startswith("/") and not line.startswith(_LEFT_OUT) and path.is_file():
            yield path
            if path.is_symlink():
                yield path.resolve()


def _libraries(files: set[Path]) -> Iterator[Path]:
    programs = [str(path) for path in files if os.access(path, os.X_OK) or ".so" in path.suffixes]
    shown = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    for line in shown.splitlines():
        for word in line.split():
            if word.startswith("/") and not word.endswith(":"):
                yield Path(word)
                yield Path(word).resolve()


def _real(path: Path) -> Path:
    """Return the path of the file itself, which may be a link, without links to directories."""
    return path.parent.resolve() / path.name
